from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from holistic_cam_plugin import CAMERAS, HolisticCAM
from holistic_cam_plugin.method.pyramid import resize_image
from holistic_cam_plugin.passes.capture import Capture, LayerError
from holistic_cam_plugin.passes.run import run_original, run_scale

MODULE = importlib.import_module("holistic_cam_plugin.passes.run")
SIZES = [(64, 64), (80, 80), (96, 96)]
SMALL = {"sizes": [64, 80, 96]}


def classes(*categories):
    return [ClassifierOutputTarget(category) for category in categories]


def test_every_scale_of_every_image_layer_and_target_is_that_of_plain_autograd(net, images):
    layers = [net.layer1, net.layer2]
    targets = [classes(1, 4), classes(0)]
    capture = Capture(net, layers)
    original = run_original(capture, images, targets)
    torch.testing.assert_close(original.outputs, net(images))
    scales = [original.scale, *(run_scale(capture, images, original, size, "bilinear", False) for size in SIZES[1:])]
    for scale, size in zip(scales, SIZES, strict=True):
        assert scale.size == size
        assert scale.finite
        assert scale.scored
        assert [[len(image) for image in layer] for layer in scale.gradients] == [[2, 1], [2, 1]]
        for i, image_targets in enumerate(targets):
            first = net.layer1(resize_image(images[i : i + 1], size))
            second = net.layer2(first)
            for k, target in enumerate(image_targets):
                score = net.head(net.layer3(second))[0, target.category]
                gradients = torch.autograd.grad(score, [first, second], retain_graph=True)
                for layer, (activations, gradient) in enumerate(zip((first, second), gradients, strict=True)):
                    torch.testing.assert_close(scale.activations[layer][i], activations[0].detach())
                    torch.testing.assert_close(scale.gradients[layer][i][k], gradient[0])


def test_targets_of_one_image_share_the_forward_pass(net, images):
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    maps = HolisticCAM(net, [net.layer2], batch_size=2, **SMALL)(images, [classes(0, 1, 2), classes(3)])
    assert maps.shape == (4, 64, 64)
    assert len(passes) == len(SMALL["sizes"])


@pytest.mark.parametrize("options", [{}, {"eigen_smooth": True}, {"aug_smooth": True}], ids=str)
@pytest.mark.parametrize("cam_class", [HolisticCAM, CAMERAS])
def test_lists_of_targets_give_the_maps_of_single_targets(any_net, images, cam_class, options):
    cam = cam_class(any_net, [any_net.layer1, any_net.layer2], batch_size=2, **SMALL)
    together = cam(images, [classes(5, 0), classes(2)], **options)
    single = [cam(images[i : i + 1], classes(k), **options)[0] for i, k in [(0, 5), (0, 0), (1, 2)]]
    np.testing.assert_allclose(together, np.stack(single), atol=1 / 255)
    assert abs(together[0] - together[1]).max() > 0.05


@pytest.mark.parametrize(
    ("targets", "error", "match"),
    [
        ([classes(1)], ValueError, "got 1 lists of targets for 2 images: pass one list per image"),
        ([classes(1), []], ValueError, "the list of targets of image 1 is empty"),
        ([classes(1), [281]], TypeError, "every target must be callable"),
        ([classes(1), classes(1)[0]], TypeError, "every target must be callable"),
        ([[], []], ValueError, "the list of targets of image 0 is empty"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"aug_smooth": True}], ids=str)
def test_lists_that_do_not_fit_the_images_are_refused(net, images, targets, error, match, options):
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(error, match=match):
        HolisticCAM(net, [net.layer2], **SMALL)(images, targets, **options)
    assert passes == []


@pytest.mark.parametrize(
    ("pixels", "chunks"), [(1, [1, 1, 1] * 3), (2 * 80 * 80, [3, 1, 1, 1, 2, 1]), (10**9, [3] * 3)]
)
def test_large_scales_go_through_the_model_a_few_images_at_a_time(net, make_images, monkeypatch, pixels, chunks):
    images = make_images(3)
    expected = HolisticCAM(net, [net.layer2], **SMALL)(images)
    seen = []
    handle = net.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    monkeypatch.setattr(MODULE, "CPU_PIXELS", pixels)
    cam = HolisticCAM(net, [net.layer2], batch_size=3, **SMALL)
    maps = cam(images)
    handle.remove()
    assert seen == chunks
    np.testing.assert_allclose(maps, expected, atol=1 / 255)
    torch.testing.assert_close(cam.outputs, net(images))


class Watched(nn.Module):
    """Remembers whether its input came with the channels last in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.last: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.last.append(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())
        return x


class Picky(Watched):
    """Works in the usual memory format alone."""

    def __init__(self, refusal: str) -> None:
        super().__init__()
        self.refusal = refusal

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        if self.refusal == "view":
            return x.view(len(x), -1, *x.shape[2:]) + x.view(len(x), -1).sum() * 0
        if self.refusal == "assert":
            assert x.is_contiguous()
        return x


def test_the_model_gets_its_images_with_the_channels_last(net, images):
    net.layer1.insert(0, watched := Watched())
    HolisticCAM(net, [net.layer2], **SMALL)(images)
    assert watched.last == [True] * 6


@pytest.mark.parametrize("refusal", ["view", "assert"])
def test_a_model_that_needs_the_usual_order_gets_it(net, images, refusal):
    expected = HolisticCAM(net, [net.layer2], **SMALL)(images)
    net.layer3.insert(0, picky := Picky(refusal))
    cam = HolisticCAM(net, [net.layer2], **SMALL)
    np.testing.assert_allclose(cam(images), expected, atol=1 / 255)
    assert picky.last == [True] + [False] * 6  # tried once
    cam(images)
    assert picky.last == [True] + [False] * 12


def test_a_target_or_a_transform_may_need_the_usual_order(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 1))
    net.eval()

    def target(output: Tensor) -> Tensor:
        return output.view(-1).sum()

    def transform(tensor: Tensor) -> Tensor:
        return tensor.view(len(tensor), -1).view(tensor.shape)

    cam = HolisticCAM(net, [net[1]], transform, num_scales=1)
    flat = HolisticCAM(net, [net[1]], num_scales=1)
    np.testing.assert_allclose(cam(images, [target] * 2), flat(images, [torch.sum] * 2), atol=1 / 255)


def test_an_error_in_both_memory_formats_is_the_models_own(net, images):
    def refuse(*_: object) -> None:
        raise RuntimeError("out of ideas")

    handle = net.layer3.register_forward_hook(refuse)
    cam = HolisticCAM(net, [net.layer2], **SMALL)
    with pytest.raises(RuntimeError, match=r"^out of ideas$"):
        cam(images)
    handle.remove()
    net.layer1.insert(0, watched := Watched())
    cam(images)
    assert watched.last == [True] * 6  # the format was not at fault


@pytest.mark.parametrize(
    ("error", "match"), [(torch.OutOfMemoryError("full"), "^full$"), (MemoryError("no more"), "^no more$")]
)
def test_running_out_of_memory_is_not_taken_for_a_fixed_size(net, images, error, match):
    def refuse(_, inputs):
        if inputs[0].shape[-1] > 64:
            raise error

    net.register_forward_pre_hook(refuse)
    with pytest.raises(type(error), match=match):
        HolisticCAM(net, [net.layer2], **SMALL)(images)


def test_a_layer_that_cannot_be_explained_is_not_a_matter_of_size(net, images):
    idle = nn.Conv2d(3, 3, 1)
    net.idle = idle
    with pytest.raises(LayerError, match=r"^target layer 'idle' \(Conv2d\) did not run in the model's forward pass$"):
        HolisticCAM(net, [idle], **SMALL)(images)


def test_a_score_without_the_layer_is_reported_as_such_at_any_base_scale(net, images):
    cam = CAMERAS(net, [net.layer2], sizes=[80, 96])
    with pytest.raises(ValueError, match=r"^the targets' score does not depend on the target layers"):
        cam(images, [lambda output: torch.zeros(())] * 2)


def test_a_base_scale_at_which_nothing_is_found_is_an_error(net, images):
    calls = []

    def lost_at_80(output: Tensor) -> Tensor:
        calls.append(1)
        return torch.zeros(()) if len(calls) == 3 else output[0]  # original, 96 px, 80 px

    with pytest.raises(ValueError, match="score does not depend on the target layers"):
        HolisticCAM(net, [net.layer2], sizes=[80, 96])(images[:1], [lost_at_80])


def test_a_size_that_is_named_twice_counts_twice(net, images):
    ((once,),) = HolisticCAM(net, [net.layer2], sizes=[64, 80]).intermediates(images[:1])
    ((twice,),) = HolisticCAM(net, [net.layer2], sizes=[64, 64, 80, 80]).intermediates(images[:1])
    assert len(twice.activations) == len(twice.weights) == 4
    np.testing.assert_allclose(twice.saliency_map, once.saliency_map, atol=1 / 255)


def test_nested_with_blocks_keep_evaluation_mode_until_the_outer_one_ends(net):
    net.train()
    cam = CAMERAS(net, [net.layer2])
    with cam:
        with cam:
            assert not net.training
        assert not net.training
    assert net.training


def test_outputs_with_positions_in_one_axis_are_told(make_images):
    """The same index is another place in a larger image."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
    model = nn.Sequential(features, nn.Conv2d(8, 2, 1), nn.Flatten(2)).eval()
    with pytest.warns(UserWarning, match="another shape for images of 96x96 px than for the original: a target"):
        HolisticCAM(model, [features], sizes=[64, 96])(make_images(1), [lambda output: output[0, 20]])
