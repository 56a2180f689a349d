"""Variation of a gradient over the positions: a literal transcription and limiting cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.harness.variation import gradient_variation


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def literal_variation(gradients: Tensor) -> float:
    """Channel by channel in float64: the share of the energy that the channel's mean does not explain."""
    explained = energy = 0.0
    for channel in gradients.double():
        values = [value for value in channel.flatten().tolist() if value != 0]
        if values:
            mean = sum(values) / len(values)
            explained += len(values) * mean**2
            energy += sum(value**2 for value in values)
    return 1 - explained / energy if energy else 0.0


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e-25])
def test_transcription(generator: torch.Generator, scale: float) -> None:
    gradients = torch.cat([torch.randn(8, 3, 5, 5, generator=generator) + mean for mean in (-2, 0, 2)])
    gradients[0, 1, 2:] = 0
    gradients[1, 2] = 0
    expected = torch.tensor([literal_variation(image) for image in gradients])
    torch.testing.assert_close(gradient_variation(gradients * scale), expected, rtol=1e-4, atol=1e-5)


def test_constant_gradients_do_not_vary(generator: torch.Generator) -> None:
    constant = torch.randn(1, 6, 1, 1, generator=generator).expand(1, 6, 5, 7)
    assert float(gradient_variation(constant)) == pytest.approx(0, abs=1e-6)
    passed = torch.rand(1, 1, 5, 7, generator=generator) > 0.7
    assert float(gradient_variation(constant * passed)) == pytest.approx(0, abs=1e-6)


def test_gradients_with_a_mean_of_zero_only_vary(generator: torch.Generator) -> None:
    gradients = torch.randn(1, 4, 64, 64, generator=generator)
    assert float(gradient_variation(torch.cat([gradients, -gradients], dim=-1))) == pytest.approx(1)


def test_no_gradient_has_no_variation() -> None:
    assert gradient_variation(torch.zeros(2, 3, 4, 4)).tolist() == [0, 0]
