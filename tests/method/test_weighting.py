from __future__ import annotations

import pytest
import torch
from torch import Tensor

from holistic_cam_plugin.method.gated import gated_weights
from holistic_cam_plugin.method.variation import gradient_variation
from holistic_cam_plugin.method.weighting import WEIGHTINGS, weighting_by_name


def literal_variation(gradients: Tensor) -> float:
    """One channel after the other, in float64: the share of the energy that is not the channel's mean."""
    explained = energy = 0.0
    for channel in gradients.double():
        values = [value for value in channel.flatten().tolist() if value != 0]
        if values:
            mean = sum(values) / len(values)
            explained += len(values) * mean**2
            energy += sum(value**2 for value in values)
    return 1 - explained / energy if energy else 0.0


def literal(gradients: Tensor) -> Tensor:
    """One element after the other, in float64."""
    result = torch.zeros(gradients.shape, dtype=torch.float64)
    for b, image in enumerate(gradients.double()):
        variation = literal_variation(image)
        magnitude = sum(abs(g) for g in image.flatten().tolist())
        squares = sum(max(g, 0.0) ** 2 for g in image.flatten().tolist())
        for i, g in enumerate(image.flatten().tolist()):
            positive = max(g, 0.0) ** 2 * magnitude / squares if squares else 0.0
            result[b].view(-1)[i] = variation * positive + (1 - variation) * g
    return result


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e-25])
@pytest.mark.parametrize("offset", [0.0, 1.0, -3.0])
def test_the_formula_element_by_element(generator, scale, offset):
    gradients = torch.randn(2, 3, 4, 5, generator=generator) + offset
    gradients[0, 1, 2:] = 0
    gradients[1, 2] = 0
    weights = gated_weights(gradients * scale)
    torch.testing.assert_close(weights.double() / scale, literal(gradients), rtol=1e-4, atol=1e-5)
    assert weights.dtype == torch.float32


def test_images_do_not_depend_on_each_other(generator):
    gradients = torch.randn(3, 2, 4, 4, generator=generator) * torch.tensor([1.0, 1e-6, 1e3]).view(3, 1, 1, 1)
    together = gated_weights(gradients)
    for one, weights in zip(gradients, together, strict=True):
        torch.testing.assert_close(gated_weights(one[None])[0], weights)


def test_a_gradient_that_is_constant_in_every_channel_stays_as_it_is(generator):
    constant = torch.randn(1, 6, 1, 1, generator=generator).expand(1, 6, 5, 7)
    assert float(gradient_variation(constant)) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gated_weights(constant), constant, rtol=1e-5, atol=1e-6)


def test_positions_behind_a_shut_relu_do_not_count_as_variation(generator):
    constant = torch.randn(1, 6, 1, 1, generator=generator).expand(1, 6, 5, 7)
    open_positions = torch.rand(1, 1, 5, 7, generator=generator) > 0.7
    assert float(gradient_variation(constant * open_positions)) == pytest.approx(0, abs=1e-6)


def test_a_gradient_of_zero_mean_gives_positive_weights_alone(generator):
    gradients = torch.randn(1, 4, 64, 64, generator=generator)
    gradients = torch.cat([gradients, -gradients], dim=-1)
    assert float(gradient_variation(gradients)) == pytest.approx(1)
    weights = gated_weights(gradients)
    assert (weights[gradients < 0].abs() < 1e-6).all()
    torch.testing.assert_close(weights.sum(), gradients.abs().sum())


def test_the_variation_lies_between_0_and_1_whatever_the_gradient(generator):
    gradients = torch.cat([torch.randn(8, 3, 5, 5, generator=generator) + mean for mean in (-2, 0, 2)])
    variation = gradient_variation(gradients)
    expected = torch.tensor([literal_variation(image) for image in gradients])
    torch.testing.assert_close(variation.double(), expected.double(), rtol=1e-4, atol=1e-5)
    assert ((variation >= 0) & (variation <= 1)).all()


@pytest.mark.parametrize("gradients", [torch.zeros(2, 3, 4, 4), -torch.ones(1, 2, 3, 3), torch.ones(1, 1, 1, 1)])
def test_gradients_without_evidence_are_left_alone(gradients):
    assert torch.equal(gated_weights(gradients), gradients)


def test_the_gradients_are_not_changed(generator):
    activations, gradients = torch.randn(2, 1, 3, 4, 4, generator=generator)
    before = gradients.clone()
    for _, weigh, *_ in WEIGHTINGS.values():
        weigh(activations, gradients, 1e-5)
    assert torch.equal(gradients, before)


def test_an_unknown_weighting_is_named():
    with pytest.raises(ValueError, match="weighting must be one of 'pge', 'positive', 'gradient', 'gated', got 'raw'"):
        weighting_by_name("raw")
