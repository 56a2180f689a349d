"""RefineCAM of one layer and the stages after it; the model is left unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.baselines.stage_refine_cam import StageRefineCAM, find_refining_layers

TARGETS = [ClassifierOutputTarget(2), ClassifierOutputTarget(0)]


@pytest.mark.parametrize("size", [(64, 64), (64, 80), (96, 64)])
def test_the_stages_after_a_layer(net, make_images, size):
    images = make_images(2, *size)
    assert find_refining_layers(net, net.layer1[0], images) == [net.layer1[0], net.layer1, net.layer2, net.layer3]
    assert find_refining_layers(net, net.layer2[0], images) == [net.layer2[0], net.layer2, net.layer3]
    assert find_refining_layers(net, net.layer3, images) == [net.layer3]
    assert find_refining_layers(net, net.head, images) == [net.head]


def test_a_layer_that_runs_twice_is_returned_alone(make_images):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv2d(3, 3, 3, stride=2, padding=1)
            self.last = nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Linear(4, 6)

        def forward(self, x):
            return self.head(self.last(self.shared(self.shared(x))).mean(dim=(2, 3)))

    net = Twice()
    assert find_refining_layers(net, net.shared, make_images(1)) == [net.shared]


@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_the_product_of_the_maps(net, images, eigen_smooth):
    found = StageRefineCAM(net, [net.layer2])(images, TARGETS, eigen_smooth)
    maps = [
        GradCAMPlusPlus(net, [layer])(images, TARGETS, eigen_smooth=eigen_smooth) for layer in (net.layer2, net.layer3)
    ]
    product = np.prod(maps, axis=0)
    product -= product.min(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, product / product.max(axis=(1, 2), keepdims=True), atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("target", [2, 1000])
def test_the_model_is_left_unchanged(net, images, target):
    net.train()
    try:
        StageRefineCAM(net, [net.layer1])(images[:1], [ClassifierOutputTarget(target)])
    except IndexError:
        assert target == 1000
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("count", [0, 2])
def test_one_layer_at_a_time(net, count):
    with pytest.raises(ValueError, match=f"one target layer at a time, got {count}"):
        StageRefineCAM(net, [net.layer1] * count)
