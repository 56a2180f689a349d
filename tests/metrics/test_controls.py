"""Control methods: a centred Gaussian, and any method with the mask of its own maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.sess import SESS
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import HolisticCAM, fundamental_scale_denoising, min_max_normalize
from holistic_cam_plugin.metrics import CenteredGaussian, add_mask

TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))


class TestCenteredGaussian:
    def test_closed_form(self, model, images):
        with CenteredGaussian(model, [model[0]], sigma=0.2) as cam:
            maps = cam(images, TARGETS)
        assert maps.shape == (2, 64, 48)
        assert maps.dtype == np.float32
        assert (maps.min(), maps.max()) == (0, 1)
        np.testing.assert_array_equal(maps[0], maps[1])
        np.testing.assert_allclose(maps[0], maps[0][::-1, ::-1], atol=1e-7)
        down, across = np.meshgrid((np.arange(64) - 31.5) / 64, (np.arange(48) - 23.5) / 48, indexing="ij")
        bell = np.exp(-(down**2 + across**2) / 0.08)
        np.testing.assert_allclose(maps[0], (bell - bell.min()) / (bell.max() - bell.min()), atol=1e-6)

    def test_sigma(self, model, images):
        narrow, wide = (CenteredGaussian(model, sigma=sigma)(images).mean() for sigma in (0.1, 0.5))
        assert narrow < wide

    @pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf")])
    def test_invalid_arguments(self, model, sigma):
        with pytest.raises(ValueError, match="sigma must be a finite number above 0"):
            CenteredGaussian(model, sigma=sigma)


class TestMask:
    @pytest.mark.parametrize("method", [GradCAM, LayerCAM])
    def test_is_the_map_times_its_mask(self, model, images, method):
        wrapped = add_mask(method)
        assert wrapped.__name__ == f"Masked{method.__name__}"
        assert issubclass(wrapped, method)
        plain = method(model, [model[0]])(images, TARGETS)
        expected = np.stack([min_max_normalize(fundamental_scale_denoising(one, one)) for one in plain])
        with wrapped(model, [model[0]]) as cam:
            np.testing.assert_array_equal(cam(images, TARGETS), expected)
            np.testing.assert_array_equal(cam(input_tensor=images, targets=TARGETS), expected)
        assert not np.allclose(expected, plain)
        assert expected.dtype == np.float32

    def test_constructor_s_options_pass_through(self, model, images):
        cam = add_mask(HolisticCAM)(model, [model[0]], num_scales=2, fsd=False)
        maps = cam(images, TARGETS)
        assert cam.num_scales == 2
        assert maps.shape == (2, 64, 48)

    def test_under_a_meta_method(self, model, images):
        cam = SESS(model, [model[0]], base_method=add_mask(GradCAM), num_scales=2)
        assert np.isfinite(cam(images[:1], TARGETS[:1])).all()

    def test_needs_a_class(self, model):
        with pytest.raises(TypeError, match="base_method must be a class, such as GradCAM"):
            add_mask(GradCAM(model, [model[0]]))
