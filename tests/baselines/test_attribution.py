"""Competing methods: form of the maps, determinism, and no side effects on the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.refine_cam import RefineCAM
from pytorch_grad_cam.sess import SESS
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.baselines.cam import CAM


class Product(Attribution):
    """A minimal method with layers: positive products of activations and gradients."""

    def compute_maps(self, images, targets):
        records = zip(*self.activations_and_gradients(images, targets), strict=True)
        return [(activations * gradients).sum(dim=1).relu() for activations, gradients in records]


@pytest.fixture(params=[CAM, Product])
def method(request):
    return request.param


@pytest.fixture
def net(make_net):
    """A classifier with high scores for fine texture and zeros for a constant image."""
    net = make_net("plain")
    for module in net.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    net.head[2].weight.data *= 300
    return net


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets(net, images):
    return [ClassifierOutputTarget(int(category)) for category in net(images).argmax(dim=1)]


def maps_of(method, net, *arguments):
    return method(net, [net.layer3])(*arguments)


class TestForm:
    def test_maps(self, method, net, images, targets):
        maps = maps_of(method, net, images, targets)
        assert maps.shape == (2, 64, 48)
        assert maps.dtype == np.float32
        assert maps.flags.c_contiguous
        np.testing.assert_array_equal(maps.min(axis=(1, 2)), 0)
        np.testing.assert_array_equal(maps.max(axis=(1, 2)), 1)

    def test_same_again_whatever_the_global_seed(self, method, net, images, targets):
        before = torch.random.get_rng_state()
        maps = maps_of(method, net, images, targets)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(77)
        np.testing.assert_array_equal(maps_of(method, net, images, targets), maps)

    def test_maps_do_not_depend_on_the_batch(self, method, net, images, targets):
        together = maps_of(method, net, images, targets)
        for image, target, saliency_map in zip(images.split(1), targets, together, strict=True):
            np.testing.assert_allclose(maps_of(method, net, image, [target])[0], saliency_map, atol=1e-4)

    def test_no_targets_means_the_predicted_class(self, method, net, images, targets):
        with method(net, [net.layer3]) as cam:
            np.testing.assert_array_equal(cam(images), cam(input_tensor=images, targets=targets))

    def test_invalid_arguments(self, method, net, images, targets):
        cam = method(net, [net.layer3])
        with pytest.raises(ValueError, match="got 1 targets for 2 images"):
            cam(images, targets[:1])
        with pytest.raises(ValueError, match="must be a batch"):
            cam(images[0])
        for option in ({"aug_smooth": True}, {"eigen_smooth": True}):
            with pytest.raises(ValueError, match=f"{method.__name__} does not support aug_smooth or eigen_smooth"):
                cam(images, targets, **option)


class TestSideEffects:
    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_frozen_models_and_modes(self, method, net, images, targets, context):
        expected = maps_of(method, net, images, targets)
        net.requires_grad_(False)
        with context():
            np.testing.assert_array_equal(maps_of(method, net, images, targets), expected)
            np.testing.assert_array_equal(maps_of(method, net, images.clone(), targets), expected)

    @pytest.mark.filterwarnings("ignore:a saliency map is constant")
    @pytest.mark.parametrize("fails", [False, True])
    def test_the_model_is_left_unchanged(self, method, make_net, images, targets, fails):
        net = make_net("residual")
        net.layer2.train()
        net(images).sum().backward()
        net.layer1.conv1.weight.requires_grad_(False)
        state = {name: value.clone() for name, value in net.state_dict().items()}
        gradients = [(p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()]
        modes = [module.training for module in net.modules()]

        if fails:
            with pytest.raises(IndexError):
                maps_of(method, net, images, [ClassifierOutputTarget(99)] * 2)
        else:
            maps_of(method, net, images, targets)

        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        assert [module.training for module in net.modules()] == modes
        for parameter, required, gradient, values in gradients:
            assert parameter.requires_grad == required
            assert parameter.grad is gradient
            assert gradient is None or torch.equal(gradient, values)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())

    def test_a_model_that_changes_its_input_in_place(self, method, net, images):
        class Scaled(nn.Module):
            def __init__(self, in_place: bool) -> None:
                super().__init__()
                self.net, self.in_place, self.layer3 = net, in_place, net.layer3

            def forward(self, x):
                return self.net(x.mul_(2) if self.in_place else x * 2)

        half = (images / 2).contiguous(memory_format=torch.channels_last)
        before = half.clone()
        maps = maps_of(method, Scaled(True).eval(), half)
        assert torch.equal(half, before)
        np.testing.assert_array_equal(maps, maps_of(method, Scaled(False).eval(), half))


class TestLayers:
    def test_checked(self, net):
        with pytest.raises(TypeError, match="target_layers must be a list"):
            Product(net, net.layer3)
        with pytest.raises(ValueError, match="is not part of the model"):
            Product(net, [nn.ReLU()])

    def test_nothing_stays_recorded_after_an_error(self, net, images):
        cam = Product(net, [net.layer3])
        with pytest.raises(IndexError):
            cam(images, [ClassifierOutputTarget(99)] * 2)
        assert cam.activations_and_grads.activations == []

    def test_wrapped_models(self, net, images):
        parallel = nn.DataParallel(net)
        np.testing.assert_array_equal(maps_of(Product, net, images), Product(parallel, [net.layer3])(images))

    def test_models_without_parameters(self, images):
        model = nn.Sequential(nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        assert Product(model, [model[0]])(images).shape == (2, 64, 48)

    def test_under_pytorch_grad_cam_s_meta_methods(self, net, images, targets):
        assert np.isfinite(SESS(net, [net.layer3], base_method=Product, num_scales=2)(images[:1], targets[:1])).all()
        product = RefineCAM(net, [net.layer2, net.layer3], base_method=Product)(images[:1], targets[:1])
        assert product.shape == (1, 64, 48)
