"""Relevance-CAM: the z+ rule by hand, conservation in torchvision's families, and no side effects."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.finer_cam import FinerCAM
from pytorch_grad_cam.refine_cam import RefineCAM
from pytorch_grad_cam.sess import SESS
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import holistic_cam_plugin
from holistic_cam_plugin.baselines.relevance_cam import RelevanceCAM, contrastive_relevance, propagate_relevance
from holistic_cam_plugin.passes.capture import Capture

FAMILIES = [
    ("resnet18", ["layer1", "layer2.1", "layer3", "layer4"]),
    ("resnet50", ["layer2", "layer4"]),
    pytest.param("vgg11", ["features.10", "features.20"], marks=pytest.mark.campaign),
    pytest.param("vgg11_bn", ["features.14", "features.28"], marks=pytest.mark.campaign),
    ("squeezenet1_0", ["features.5", "features.7", "features.12"]),
    ("squeezenet1_1", ["features.7", "features.12"]),
]
TARGETS = [ClassifierOutputTarget(3), ClassifierOutputTarget(0)]


def family(name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(num_classes=10).eval()


def random_images(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tiny() -> nn.Module:
    """In-place ReLU, pooling and two linear layers."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(inplace=True))
    hidden = (nn.Linear(12, 20), nn.ReLU(inplace=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden, nn.Linear(20, 4))
    return nn.Sequential(body, head).eval()


class TestByHand:
    def z_plus(self, received, weight, relevance):
        """Relevance of a linear layer's inputs, which are never negative, from its outputs'."""
        contributions = received[None] * weight.clip(min=0)
        totals = contributions.sum(axis=1, keepdims=True)
        return (contributions / np.where(totals > 0, totals, 1) * relevance[:, None]).sum(axis=0)

    def test_map_of_a_tiny_net(self, tiny):
        image = random_images(1, 12)
        activations = tiny[0](image)[0].detach().double().numpy()
        first, second = (tiny[1][place].weight.detach().double().numpy() for place in (2, 4))
        pooled = activations.mean(axis=(1, 2))
        hidden = np.maximum(first @ pooled + tiny[1][2].bias.detach().double().numpy(), 0)
        start = np.full(4, -1 / 3)
        start[2] = 1
        channels = self.z_plus(pooled, first, self.z_plus(hidden, second, start))
        # The pooling spreads a channel's relevance over its positions, and the mean collects it again.
        cam = np.maximum(np.tensordot(channels, activations, axes=1) / 100, 0)[None]
        assert cam.max() > 0
        expected = scale_cam_image(scale_cam_image(cam.astype(np.float32) / cam.max(), (12, 12)))
        result = RelevanceCAM(tiny, [tiny[0]])(image, [ClassifierOutputTarget(2)])
        np.testing.assert_allclose(result, expected, atol=1e-4)  # zennit adds 1e-6 to denominators

    def test_start(self):
        choice = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0]])
        expected = torch.tensor([[-1 / 3, 1, -1 / 3, -1 / 3], [1, -1 / 3, -1 / 3, -1 / 3]])
        torch.testing.assert_close(contrastive_relevance(choice), expected)
        torch.testing.assert_close(contrastive_relevance(torch.ones(2, 1)), torch.ones(2, 1))
        dense = torch.zeros(1, 2, 3, 3)
        dense[0, 1] = 1 / 9
        assert float(contrastive_relevance(dense).sum()) == pytest.approx(0, abs=1e-6)

    def test_propagation_is_linear_in_the_start(self, tiny):
        # So the paper's start, the logit instead of 1, gives the same maps.
        capture, images = Capture(tiny, [tiny[0]]), random_images()
        _, _, (unit,) = propagate_relevance(capture, images, TARGETS)
        _, _, (scaled,) = propagate_relevance(
            capture, images, TARGETS, lambda choice: 17 * contrastive_relevance(choice)
        )
        torch.testing.assert_close(scaled, 17 * unit)


@pytest.mark.parametrize(("name", "layers"), FAMILIES)
class TestFamilies:
    def test_relevance_is_conserved(self, name, layers):
        model = family(name)
        capture = Capture(model, [model.get_submodule(layer) for layer in layers])
        # The target's output must be above 0: SqueezeNet ends in a ReLU, and an output of 0 has no relevance.
        outputs, activations, relevances = propagate_relevance(capture, random_images(), start=lambda choice: choice)
        assert outputs.shape == (2, 10)
        for activation, relevance in zip(activations, relevances, strict=True):
            assert relevance.shape == activation.shape
            torch.testing.assert_close(relevance.sum(dim=(1, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)

    def test_maps(self, name, layers):
        model = family(name)
        state = copy.deepcopy(model.state_dict())
        cam = RelevanceCAM(model, [model.get_submodule(layer) for layer in layers])
        maps = cam(random_images())
        assert maps.shape == (2, 64, 64)
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()
        assert maps.min() >= 0
        assert maps.max() <= 1
        np.testing.assert_allclose(maps, cam(random_images()), atol=1e-6)
        torch.testing.assert_close(cam.outputs, model(random_images()).detach())
        assert_no_traces(model, state)


def assert_no_traces(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert "forward" not in vars(module)
        assert not hasattr(module, "canonizer_sum")


class TestSideEffects:
    def test_none_after_an_error(self):
        model = family("resnet18").train()
        model.bn1.eval()
        identities = [id(parameter) for parameter in model.parameters()]
        state = copy.deepcopy(model.state_dict())
        cam = RelevanceCAM(model, [model.layer2])
        with pytest.raises(IndexError):
            cam(random_images(1), [ClassifierOutputTarget(10)])
        assert_no_traces(model, state)
        assert [id(parameter) for parameter in model.parameters()] == identities
        assert model.training
        assert not model.bn1.training

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_frozen_models_and_modes(self, tiny, context):
        expected = RelevanceCAM(tiny, [tiny[0]])(random_images(), TARGETS)
        tiny.requires_grad_(False)
        with context():
            maps = RelevanceCAM(tiny, [tiny[0]])(random_images(), TARGETS)
        np.testing.assert_array_equal(maps, expected)

    def test_own_gradients_stay(self, tiny):
        tiny(random_images()).sum().backward()
        parameters = list(tiny.parameters())
        gradients = [parameter.grad.clone() for parameter in parameters]
        RelevanceCAM(tiny, [tiny[0]])(random_images(), TARGETS)
        for parameter, own, gradient in zip(tiny.parameters(), parameters, gradients, strict=True):
            assert parameter is own  # the optimizer's
            assert torch.equal(parameter.grad, gradient)


class TestAsAMethodOfPytorchGradCam:
    def test_is_one(self, tiny):
        assert RelevanceCAM in BaseCAM.__subclasses__()
        with RelevanceCAM(tiny, [tiny[0]]) as cam:
            best = [ClassifierOutputTarget(int(category)) for category in tiny(random_images()).argmax(dim=1)]
            np.testing.assert_array_equal(cam(random_images()), cam(input_tensor=random_images(), targets=best))
            assert cam(random_images(), TARGETS, eigen_smooth=True).shape == (2, 64, 64)

    def test_augmentations_explain_the_original_image_s_class(self, tiny):
        cam = RelevanceCAM(tiny, [tiny[0]])
        best = [ClassifierOutputTarget(int(category)) for category in tiny(random_images()).argmax(dim=1)]
        smooth = cam(random_images(), aug_smooth=True)
        np.testing.assert_allclose(smooth, cam(random_images(), best, aug_smooth=True), atol=1e-6)
        assert not np.allclose(smooth, cam(random_images()), atol=1e-3)

    def test_several_layers_give_the_mean_of_their_maps(self, tiny):
        arguments = random_images(), TARGETS
        single = [RelevanceCAM(tiny, [layer]).compute_cam_per_layer(*arguments)[0] for layer in (tiny[0], tiny[0][0])]
        both = RelevanceCAM(tiny, [tiny[0], tiny[0][0]])(*arguments)
        np.testing.assert_allclose(both, scale_cam_image(np.mean(single, axis=0)[:, 0]), atol=1e-5)
        assert not np.allclose(*single)

    @pytest.mark.parametrize("meta", [SESS, RefineCAM, FinerCAM])
    def test_under_the_meta_methods(self, meta):
        model = family("squeezenet1_1")
        options = {"num_scales": 2} if meta is SESS else {}
        cam = meta(model, [model.features[12]], base_method=RelevanceCAM, **options)
        targets = None if meta is FinerCAM else TARGETS[:1]
        assert np.isfinite(cam(random_images(1), targets)).all()

    def test_errors_propagate(self, tiny):
        with pytest.raises(IndexError), RelevanceCAM(tiny, [tiny[0]]):
            raise IndexError

    def test_invalid_arguments(self, tiny):
        with pytest.raises(TypeError, match="target_layers must be a list"):
            RelevanceCAM(tiny, tiny[0])
        cam = RelevanceCAM(tiny, [tiny[0]])
        with pytest.raises(ValueError, match="got 1 targets for 2 images"):
            cam(random_images(), TARGETS[:1])
        with pytest.raises(ValueError, match="must be a batch"):
            cam(random_images()[0], TARGETS[:1])


class TestOptionalExtra:
    def test_error_names_the_extra(self, monkeypatch):
        path = Path(holistic_cam_plugin.__file__).parent / "baselines" / "relevance_cam.py"
        spec = importlib.util.spec_from_file_location("relevance_cam_without_zennit", path)
        monkeypatch.setitem(sys.modules, "zennit.composites", None)
        with pytest.raises(ImportError, match=r'pip install "holistic-cam-plugin\[relevance\]"'):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
