"""The ways in which people run models: without gradients, in low precision, frozen, wrapped, compiled."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import HolisticCAM

SIZES = {"sizes": [64, 96]}


def explain(model: nn.Module, layers: list[nn.Module], images: Tensor, **options: bool) -> np.ndarray:
    return HolisticCAM(model, layers, **SIZES)(images, **options)


@pytest.mark.parametrize("options", [{}, {"aug_smooth": True}, {"eigen_smooth": True}], ids=str)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad, nullcontext])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_contexts_and_frozen_models_give_the_same_maps(any_net, images, context, frozen, options):
    layers = [any_net.layer3, any_net.layer1]
    expected = explain(any_net, layers, images, **options)
    any_net.requires_grad_(not frozen)
    with context():
        inside = images * 1  # in inference mode, a tensor made there
        assert np.array_equal(explain(any_net, layers, inside, **options), expected)
        enabled = torch.is_grad_enabled()
    assert enabled == (context in (torch.enable_grad, nullcontext))
    assert np.array_equal(explain(any_net, layers, inside, **options), expected)  # and taken out of it


def test_partly_frozen_models_and_inputs_with_gradients(net, images):
    expected = explain(net, [net.layer2], images)
    net.layer1.requires_grad_(False)
    net.head.requires_grad_(False)
    images = images.clone().requires_grad_()
    assert np.array_equal(explain(net, [net.layer2], images), expected)
    assert images.grad is None


def test_a_forward_that_turns_gradients_off_itself(net, images):
    expected = explain(net, [net.layer2], images)
    net.forward = torch.no_grad()(net.forward)
    assert np.array_equal(explain(net, [net.layer2], images), expected)


def correlation(maps: np.ndarray, others: np.ndarray) -> float:
    return min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, others, strict=True))


@pytest.mark.parametrize("eigen_smooth", [False, True])
@pytest.mark.parametrize("fsd", [False, True])
def test_autocast(any_net, images, fsd, eigen_smooth):
    cam = HolisticCAM(any_net, [any_net.layer2], fsd=fsd, **SIZES)
    targets = [ClassifierOutputTarget(c) for c in any_net(images).argmax(dim=1).tolist()]
    expected = cam(images, targets, eigen_smooth=eigen_smooth)
    with torch.autocast("cpu", torch.bfloat16):
        maps = cam(images, targets, eigen_smooth=eigen_smooth)
        assert cam.outputs.dtype == torch.bfloat16  # it was on
    assert maps.dtype == np.float32
    assert correlation(maps, expected) > 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_in_another_precision(any_net, images, dtype):
    expected = explain(any_net, [any_net.layer2], images)
    maps = explain(any_net.to(dtype), [any_net.layer2], images.to(dtype))
    assert maps.dtype == np.float32
    assert correlation(maps, expected) > 0.98


def test_data_parallel_is_unwrapped(net, images):
    wrapper = nn.DataParallel(net)
    expected = explain(net, [net.layer2], images)
    assert HolisticCAM(wrapper, [net.layer2]).model is net
    assert np.array_equal(explain(wrapper, [wrapper.module.layer2], images), expected)


@pytest.mark.parametrize("mode", ["wrapper", "in place", "a stage"])
def test_compiled_models(make_net, images, mode):
    net, twin = make_net(), make_net()
    model, layers = net, [net.layer2[0], net.layer3]
    if mode == "wrapper":
        model = torch.compile(net, backend="eager")
    elif mode == "in place":
        net.compile(backend="eager")
    else:
        net.layer2 = torch.compile(net.layer2, backend="eager")
    with torch.no_grad():  # compiled now, without our hooks, for the very inputs and mode that they will meet
        for size in SIZES["sizes"]:
            model(F.interpolate(images[:1], size=size, mode="bilinear"))
    expected = explain(twin, [twin.layer2[0], twin.layer3], images)
    np.testing.assert_allclose(explain(model, layers, images), expected, atol=1 / 255)
    torch.testing.assert_close(model(images), twin(images))


def test_the_compiler_is_left_alone_where_nobody_uses_it(monkeypatch, net, images):
    expected = explain(net, [net.layer2], images)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch.compiler, "set_stance", lambda *_: pytest.fail("this would import the compiler"))
    assert np.array_equal(explain(net, [net.layer2], images), expected)


def test_in_place_relu_right_after_the_layer(make_net, images, reference):
    net = make_net("residual")
    assert net.layer2.relu.inplace
    expected = reference(net, ["layer2.bn1"], images, fsd=False, **SIZES)
    maps = HolisticCAM(net, [net.layer2.bn1], fsd=False, **SIZES)(images)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_layers_in_any_order_give_their_own_maps(any_net, images):
    names = ["layer3", "layer1", "layer2"]
    cam = HolisticCAM(any_net, [any_net.get_submodule(name) for name in names], fsd=False, **SIZES)
    together = cam.compute_cam_per_layer(images, None)
    for name, maps in zip(names, together, strict=True):
        alone = HolisticCAM(any_net, [any_net.get_submodule(name)], fsd=False, **SIZES)(images)
        np.testing.assert_allclose(maps[:, 0], alone, atol=1e-4)


def test_duplicate_and_nested_layers(net, images):
    single = explain(net, [net.layer2], images)
    assert np.array_equal(explain(net, [net.layer2, net.layer2], images), single)
    np.testing.assert_allclose(explain(net, [net.layer2, net.layer2[1]], images), single, atol=1 / 255)


class TinyViT(nn.Module):
    """Patches of 16 px, a class token, one residual block: accepts every size that holds a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, stride=16)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = tokens + self.mix(self.norm(tokens)).tanh()
        return self.head(tokens[:, 1:].mean(dim=1))


@pytest.fixture
def vit() -> TinyViT:
    torch.manual_seed(0)
    return TinyViT().eval()


def test_a_reshape_transform_of_fixed_grid_is_refused_at_another_size(vit, make_images):
    images = make_images(1, 224, 224)
    cam = HolisticCAM(vit, [vit.norm], vit_reshape_transform)
    with pytest.raises(
        ValueError,
        match=r"takes images of 224x224 px but not the pyramid's 1081x1081 px \(.*swin_reshape_transform, which follow",
    ):
        cam(images)
    cam.num_scales = 1
    assert np.ptp(cam(images)) == 1


def test_a_reshape_transform_for_all_sizes_runs_the_pyramid(vit, make_images):
    def square(tokens: Tensor) -> Tensor:
        side = int((tokens.shape[1] - 1) ** 0.5)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    maps = HolisticCAM(vit, [vit.norm], square, sizes=[64, 96])(make_images(2))
    assert maps.shape == (2, 64, 64)
    assert np.ptp(maps) == 1


def test_a_fixed_size_model_names_the_size_and_the_remedy(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 3)).eval()
    cam = HolisticCAM(model, [model[0]])
    with pytest.raises(
        ValueError, match=r"64x64 px but not the pyramid's 921x921 px \(.*Pass tiles=True .* or num_scales=1 without"
    ):
        cam(images)
    cam.sizes = [64]
    assert cam(images).shape == (2, 64, 64)


def test_zero_dimensional_and_other_target_shapes(net, images):
    by_index = HolisticCAM(net, [net.layer2], **SIZES)(images, [ClassifierOutputTarget(2)] * 2)
    by_slice = HolisticCAM(net, [net.layer2], **SIZES)(images, (lambda output: output[2:3],) * 2)
    assert np.array_equal(by_index, by_slice)
