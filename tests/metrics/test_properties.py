"""Properties of the metrics for any map in [0, 1], with plateaus and denormal numbers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import (
    Deletion,
    RelativeROAD,
    average_precision,
    best_iou,
    energy_pointing_game,
    histogram_entropy,
    lucidity,
    rank_pixels,
    similarity,
    tied_pixels,
)

some = settings(max_examples=60, deadline=None)

values = st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, 1e-45, 1e-40, 1e-38])


def maps(smallest: int = 2, largest: int = 12) -> st.SearchStrategy[np.ndarray]:
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=smallest, max_side=largest)
    # Most of a map is one value: plateaus and constants are common.
    return shapes.flatmap(lambda shape: arrays(np.float32, (1, *shape), elements=values, fill=values))


class Pooled(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 5 * images.mean(dim=(2, 3))


@some
@given(maps(), st.data())
def test_localisation_lies_between_0_and_1(cams, data):
    height, width = cams.shape[1:]
    mask = data.draw(arrays(np.bool_, (height, width)))
    mask[0, 0], mask[-1, -1] = True, False  # neither empty nor everything
    share = mask.mean()
    figures = [f(cams, [mask])[0] for f in (energy_pointing_game, lucidity, average_precision, best_iou)]
    assert all(0 <= figure <= 1 for figure in figures)
    assert average_precision(cams, [mask])[0] > 0
    assert best_iou(cams, [mask])[0] >= share
    constant = np.full_like(cams, cams[0, 0, 0])
    assert best_iou(constant, [mask])[0] == share


@some
@given(maps(), st.sampled_from([2.0**-900, 2.0**-100, 2.0**100, 2.0**900]))
def test_no_score_depends_on_the_unit(cams, unit):
    mask = np.zeros(cams.shape[1:], bool)
    mask[0] = True
    cams = cams.astype(np.float64)
    for measure in (energy_pointing_game, lucidity, average_precision, best_iou):
        assert measure(cams * unit, [mask]) == measure(cams, [mask])
    for measure in (histogram_entropy, tied_pixels):
        assert measure(cams * unit) == measure(cams)
    np.testing.assert_array_equal(rank_pixels(cams * unit), rank_pixels(cams))


@some
@given(maps(), st.integers(1, 300))
def test_complexity_lies_between_0_and_that_of_noise(cams, bins):
    assert 0 <= histogram_entropy(cams, bins)[0] <= np.log(bins) + 1e-9


@some
@given(maps())
def test_ranks_are_a_permutation_in_descending_order(cams):
    order = np.argsort(rank_pixels(cams).ravel())
    assert (np.diff(cams.ravel()[order]) <= 0).all()
    assert 0 <= tied_pixels(cams)[0] <= 1


@some
@given(maps(11, 14), maps(11, 14))
def test_similarity_is_symmetric_and_at_most_1(first, second):
    height, width = np.minimum(first.shape, second.shape)[1:]
    a, b = first[0, :height, :width], second[0, :height, :width]
    there, back, same = similarity(a, b), similarity(b, a), similarity(a, a)
    np.testing.assert_allclose(there, back, atol=1e-9)
    assert abs(same.ssim - 1) < 1e-9
    assert -1 - 1e-9 <= there.ssim <= 1 + 1e-9
    assert np.isnan(there.spearman) or abs(there.spearman) <= 1 + 1e-9


@settings(max_examples=20, deadline=None)
@given(maps(2, 6))
def test_fidelity_is_finite_for_every_map(cams):
    images = torch.linspace(-1, 1, 3 * cams[0].size).reshape(1, 3, *cams.shape[1:])
    targets = [ClassifierOutputTarget(1)]
    assert 0 <= Deletion()(images, cams, targets, Pooled())[0] <= 1
    assert np.isfinite(RelativeROAD([30, 90])(images, cams, targets, Pooled())).all()
