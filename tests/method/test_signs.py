from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from holistic_cam_plugin import HolisticCAM, positive_gradient_weights
from holistic_cam_plugin.method.signs import signed_weights, split_signs

SMALL = {"sizes": [64, 96]}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_both_signs_are_weighed_as_channels_of_their_own(generator):
    activations, gradients = torch.randn(2, 2, 3, 4, 5, generator=generator)
    signed = signed_weights(positive_gradient_weights, activations, gradients)
    scales = split_signs([activations[0]], [signed[0]])
    expected = torch.cat([activations.relu(), (-activations).relu()], dim=1)
    assert torch.equal(scales[0][0], expected[0])
    weights = positive_gradient_weights(expected, torch.cat([gradients, -gradients], dim=1))
    assert torch.equal(scales[1][0], weights[0])


def test_activations_of_one_sign_are_left_alone(generator):
    activations, gradients = torch.randn(2, 2, 3, 4, 5, generator=generator)
    activations = activations.relu()
    weights = signed_weights(positive_gradient_weights, activations, gradients)
    assert torch.equal(weights, positive_gradient_weights(activations, gradients))
    scales = split_signs([activations[0]], [weights[0]])
    assert scales[0][0] is not None
    assert torch.equal(scales[0][0], activations[0])
    assert torch.equal(scales[1][0], weights[0])


def test_an_image_of_one_sign_does_not_care_for_the_batch(generator):
    activations, gradients = torch.randn(2, 2, 3, 4, 5, generator=generator)
    activations[0].relu_()
    weights = signed_weights(positive_gradient_weights, activations, gradients)[0]
    alone = signed_weights(positive_gradient_weights, activations[:1], gradients[:1])[0]
    assert torch.equal(weights, alone)
    assert not (weights < 0).any()


def test_one_negative_scale_splits_all(generator):
    stack = [torch.rand(3, 4, 4, generator=generator), torch.randn(3, 6, 6, generator=generator)]
    activations, weights = split_signs(stack, stack)
    assert [len(x) for x in (*activations, *weights)] == [6] * 4
    assert torch.equal(activations[0], torch.cat([stack[0], torch.zeros(3, 4, 4)]))


class Bottleneck(nn.Module):
    """A linear bottleneck, whose channels' signs are a convention, and a net that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8))
        self.expand = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.expand(self.project(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize("weighting", ["pge", "positive", "gradient"])
def test_a_channels_sign_is_a_convention(images, weighting):
    torch.manual_seed(0)
    net = Bottleneck().eval()
    negated, some = copy.deepcopy(net), [0, 3, 4, 6]
    with torch.no_grad():
        negated.project[1].weight[some] *= -1
        negated.project[1].bias[some] *= -1
        negated.expand[0].weight[:, some] *= -1
    torch.testing.assert_close(negated(images), net(images))
    maps = HolisticCAM(net, [net.project], weighting=weighting, **SMALL)(images)
    assert maps.std() > 0.02
    again = HolisticCAM(negated, [negated.project], weighting=weighting, **SMALL)(images)
    np.testing.assert_allclose(again, maps, atol=1e-4)
