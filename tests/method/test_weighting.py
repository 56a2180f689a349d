from __future__ import annotations

import pytest
import torch

from holistic_cam_plugin.method.weighting import WEIGHTINGS, find_weighting
from tests.conftest import LITERAL_WEIGHTS


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_the_weights_are_those_of_the_literal_formula(generator, name, eps):
    activations, gradients = torch.randn(2, 3, 4, 5, generator=generator).relu(), torch.randn(3, 4, 5)
    weights = find_weighting(name).weigh(activations[0], gradients, eps)
    expected = LITERAL_WEIGHTS[name](activations[:1].double(), gradients[None].double(), eps)[0]
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-7)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_activations_and_gradients_are_not_changed(generator, name):
    activations, gradients = torch.randn(2, 3, 4, 4, generator=generator)
    before = activations.clone(), gradients.clone()
    find_weighting(name).weigh(activations, gradients, 1e-5)
    assert torch.equal(activations, before[0])
    assert torch.equal(gradients, before[1])


def test_an_unknown_weighting_is_named():
    with pytest.raises(ValueError, match="weighting must be one of 'pge', 'positive', 'gradient', got 'raw'"):
        find_weighting("raw")
