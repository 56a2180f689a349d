"""The paper in one function, against its literal transcription in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from holistic_cam_plugin import fuse_principal, holistic_map, split_signs
from tests.conftest import LITERAL_WEIGHTS, literal_wrap, min_max, to_canvas

SIZE = (64, 80)
GRIDS = [(8, 10), (12, 15), (16, 20)]


@pytest.fixture(params=["after ReLU", "signed"])
def scales(request: pytest.FixtureRequest) -> tuple[list[Tensor], list[Tensor]]:
    """Activations with a hot spot, and gradients that are positive around it."""
    generator = torch.Generator().manual_seed(0)
    activations, gradients = [], []
    for height, width in GRIDS:
        y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
        spot = torch.exp(-((y - 0.2) ** 2 + (x + 0.3) ** 2) / 0.2)
        noise = torch.randn(2, 5, height, width, generator=generator)
        activations.append(spot + 0.1 * noise[0])
        gradients.append(0.01 * (spot + 0.3 * noise[1]))
    if request.param == "after ReLU":
        activations = [a.relu() for a in activations]
    else:
        activations = [a * torch.tensor([1.0, -1, 1, -1, 1]).view(5, 1, 1) for a in activations]
        gradients = [g * torch.tensor([1.0, -1, 1, -1, 1]).view(5, 1, 1) for g in gradients]
    return activations, gradients


def literal_map(
    activations: list[Tensor], gradients: list[Tensor], weighting: str, eps: float, fsd: bool
) -> np.ndarray:
    """Equations 8 and 10 to 17 on full tensors."""
    on_canvas = []
    for a, g in zip(activations, gradients, strict=True):
        a, g = a[None].double(), g[None].double()
        if weighting != "gradient":
            a, g = torch.cat([a.relu(), (-a).relu()], dim=1), torch.cat([g, -g], dim=1)
        weights = LITERAL_WEIGHTS[weighting](a, g, eps)
        on_canvas.append((to_canvas(a, SIZE), to_canvas(weights, SIZE)))
    mean_a, mean_w = (np.mean([pair[i] for pair in on_canvas], axis=0) for i in (0, 1))
    primary = np.maximum((mean_w * mean_a).sum(axis=0), 0)
    base = np.maximum((on_canvas[0][0] * on_canvas[0][1]).sum(axis=0), 0)
    return min_max(primary * literal_wrap(base, min(SIZE)) if fsd else primary)


@pytest.mark.parametrize("fsd", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("weighting", ["pge", "positive", "gradient"])
def test_the_map_is_that_of_the_equations(scales, weighting, eps, fsd):
    results = holistic_map(*scales, SIZE, weighting=weighting, eps=eps, fsd=fsd)
    expected = literal_map(*scales, weighting, eps, fsd)
    assert expected.std() > 0.05
    np.testing.assert_allclose(results.saliency_map, expected, atol=2 / 255)
    assert results.saliency_map.dtype == np.float32
    assert (results.mask is None) == (results.base is None) == (not fsd)


def test_the_arguments_are_left_as_they_are(scales):
    before = [[x.clone() for x in stack] for stack in scales]
    holistic_map(*scales, SIZE, eigen_smooth=True)
    for stack, copies in zip(scales, before, strict=True):
        assert all(torch.equal(*pair) for pair in zip(stack, copies, strict=True))


def test_eigen_smooth_replaces_the_sum_of_the_primary_map_alone(scales):
    plain = holistic_map(*scales, SIZE, weighting="positive")
    smooth = holistic_map(*scales, SIZE, weighting="positive", eigen_smooth=True)
    expected = fuse_principal(*split_signs(smooth.activations, smooth.weights), SIZE)
    np.testing.assert_allclose(smooth.fused, expected.numpy(), rtol=1e-6)
    assert np.array_equal(smooth.base, plain.base)
    assert not np.array_equal(smooth.fused, plain.fused)


def test_as_many_gradients_as_activations(scales):
    activations, gradients = scales
    with pytest.raises(ValueError, match="shorter than argument 1"):
        holistic_map(activations, gradients[:2], SIZE)


def test_an_unknown_weighting_is_refused(scales):
    with pytest.raises(ValueError, match="weighting must be one of 'pge', 'positive', 'gradient', got 'raw'"):
        holistic_map(*scales, SIZE, weighting="raw")
