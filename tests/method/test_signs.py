from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM, positive_gradient_weights
from holistic_cam_plugin.method.signs import signed_weights, split_signs

SMALL = {"sizes": [64, 96]}


def weigh(activations: Tensor, gradients: Tensor, eps: float = 1e-5) -> Tensor:
    return positive_gradient_weights(activations[None], gradients[None], eps)[0]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_both_signs_are_weighed_as_channels_of_their_own(generator):
    activations, gradients = torch.randn(2, 3, 4, 5, generator=generator)
    signed = signed_weights(weigh, activations, gradients)
    (split_activations,), (split_weights,) = split_signs([activations], [signed])
    expected = torch.cat([activations.relu(), (-activations).relu()])
    assert torch.equal(split_activations, expected)
    assert torch.equal(split_weights, weigh(expected, torch.cat([gradients, -gradients])))


def test_activations_of_one_sign_are_left_alone(generator):
    activations, gradients = torch.randn(2, 3, 4, 5, generator=generator)
    activations = activations.relu()
    weights = signed_weights(weigh, activations, gradients)
    assert torch.equal(weights, weigh(activations, gradients))
    (split_activations,), (split_weights,) = split_signs([activations], [weights])
    assert split_activations is activations
    assert split_weights is weights


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
