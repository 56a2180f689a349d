from __future__ import annotations

import pytest
import torch
from torch import Tensor

from holistic_cam_plugin import positive_gradient_weights


def literal(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """Equation 8 as it is printed, one channel after the other, in float64."""
    result = torch.zeros(activations.shape, dtype=torch.float64)
    for b in range(activations.shape[0]):
        for k in range(activations.shape[1]):
            total = max(float(activations[b, k].double().sum()), 0.0)
            for i, g in enumerate(gradients[b, k].double().flatten().tolist()):
                denominator = 2 * g**2 + g**3 * total + eps
                alpha = g**2 / denominator if denominator else 0.0
                result[b, k].view(-1)[i] = alpha * max(g, 0.0)
    return result


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("eps", [0, 1e-5, 0.1])
def test_equation_8_element_by_element(generator, scale, eps):
    activations = torch.rand(2, 3, 4, 5, generator=generator)
    gradients = torch.randn(2, 3, 4, 5, generator=generator) * scale
    weights = positive_gradient_weights(activations, gradients, eps)
    torch.testing.assert_close(weights.double(), literal(activations, gradients, eps), rtol=1e-5, atol=0)
    assert weights.dtype == torch.float32


def test_the_papers_eps_is_the_default(generator):
    activations, gradients = torch.rand(2, 1, 3, 4, 4, generator=generator)
    expected = positive_gradient_weights(activations, gradients, 1e-5)
    assert torch.equal(positive_gradient_weights(activations, gradients), expected)


def test_the_sum_is_of_the_activations_alone_per_image_and_channel():
    activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]], [[[5.0, 6.0]], [[7.0, 8.0]]]])
    weights = positive_gradient_weights(activations, torch.ones_like(activations), eps=0)
    expected = torch.tensor([[3.0, 7.0], [11.0, 15.0]]).add(2).reciprocal()[..., None, None]
    torch.testing.assert_close(weights, expected.expand(2, 2, 1, 2))


@pytest.mark.parametrize("eps", [0, 1e-5])
def test_only_positive_gradients_weigh(generator, eps):
    activations = torch.randn(1, 4, 6, 6, generator=generator)
    gradients = torch.randn(1, 4, 6, 6, generator=generator)
    gradients[0, 0] = 0
    weights = positive_gradient_weights(activations, gradients, eps)
    assert torch.equal(weights > 0, gradients > 0)
    assert torch.isfinite(weights).all()


@pytest.mark.parametrize("eps", [0, 1e-5])
def test_signed_activations_with_a_negative_sum_count_as_zero(eps):
    # Unclamped, 2 G^2 + G^3 S would be exactly 0 here.
    activations, gradients = torch.full((1, 1, 2, 2), -0.5), torch.ones(1, 1, 2, 2)
    weights = positive_gradient_weights(activations, gradients, eps)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / (2 + eps)))


@pytest.mark.parametrize("gradient", [1e-20, 1e-30, 1e-38])
def test_tiny_gradients_do_not_vanish_in_the_scale_free_limit(gradient):
    gradients = torch.full((1, 1, 2, 2), gradient)
    weights = positive_gradient_weights(torch.zeros_like(gradients), gradients, eps=0)
    torch.testing.assert_close(weights, gradients / 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gradient", [1e-20, 1e-30, 1e20])
def test_under_and_overflowing_powers_reach_the_right_limit(gradient):
    activations, gradients = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), gradient)
    weights = positive_gradient_weights(activations, gradients).double()
    torch.testing.assert_close(weights, literal(activations, gradients, 1e-5), rtol=1e-5, atol=1e-40)


def test_the_inputs_are_left_alone(generator):
    activations, gradients = torch.randn(2, 1, 3, 4, 4, generator=generator)
    before = activations.clone(), gradients.clone()
    positive_gradient_weights(activations, gradients)
    assert torch.equal(activations, before[0])
    assert torch.equal(gradients, before[1])


def test_zero_channels_give_zero_weights():
    assert positive_gradient_weights(torch.zeros(1, 0, 2, 2), torch.zeros(1, 0, 2, 2)).shape == (1, 0, 2, 2)


@pytest.mark.parametrize("eps", [-1e-9, 1e-300, 1e300, float("nan"), float("inf"), True, "1e-5", None])
def test_an_impossible_eps_is_refused(eps):
    with pytest.raises(ValueError, match=r"eps must be 0 or between 1.2e-38 and 3.4e\+38, got"):
        positive_gradient_weights(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), eps)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"same shape, got \(1, 2, 3, 3\) and \(1, 2, 4, 3\)"):
        positive_gradient_weights(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 4, 3))
