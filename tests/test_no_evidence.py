"""Nothing to show, or nothing sound: the map is finite, and a warning says what happened."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM

SIZES = {"sizes": [64, 80]}


class Spoils(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, :3, :3] = self.value
        return x


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("options", [{}, {"eigen_smooth": True}], ids=str)
def test_nan_and_infinite_activations_count_as_zero_with_one_warning(net, images, value, options):
    targets = [ClassifierOutputTarget(1)] * 2
    net.layer3.append(Spoils(0.0))
    expected = HolisticCAM(net, [net.layer3], **SIZES)(images, targets, **options)
    net.layer3[-1].value = value
    with pytest.warns(UserWarning, match="NaN or infinite activations or gradients: they count as zero") as caught:
        maps = HolisticCAM(net, [net.layer3], batch_size=2, **SIZES)(images, targets, **options)
    assert len(caught) == 1
    np.testing.assert_allclose(maps, expected, atol=1e-5)  # the head is linear: its gradients stay finite


@pytest.mark.parametrize("fsd", [False, True])
def test_no_evidence_gives_zeros_with_a_warning(net, images, fsd):
    nn.init.constant_(net.head[2].weight, -1)
    cam = HolisticCAM(net, [net.layer3], fsd=fsd, **SIZES)
    with pytest.warns(UserWarning, match="a saliency map is constant and becomes zero: this layer has no evidence"):
        maps = cam(images)
    assert maps.dtype == np.float32
    assert np.array_equal(maps, np.zeros((2, 64, 64)))


class Spot(nn.Module):
    """Features that fire on one bright dot alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1, keepdim=True).relu()


def test_a_hot_spot_too_small_for_the_wrap_gives_the_unmasked_map(seen):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Spot(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    nn.init.eye_(model[0].weight[:, :, 0, 0])
    nn.init.zeros_(model[0].bias)
    images = -torch.ones(1, 3, 64, 64)
    images[:, :, 20:23, 40:43] = 5
    plain = HolisticCAM(model, [model[1]], fsd=False, **SIZES)(images)
    with pytest.warns(UserWarning, match="the mask is zero everywhere"):
        maps = HolisticCAM(model, [model[1]], **SIZES)(images)
    np.testing.assert_allclose(maps, plain, atol=1e-6)
    assert np.unravel_index(maps[0].argmax(), (64, 64)) == (21, 41)
