"""Localisation by order: scikit-learn without ties, all orders of tied pixels, and invariances."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from torch import nn

from holistic_cam_plugin.metrics import AveragePrecision, BestIoU, average_precision, best_iou

shuffled = st.permutations(range(48)).map(lambda order: np.array(order, dtype=np.float64).reshape(6, 8))
masks = arrays(bool, (6, 8)).filter(lambda mask: mask.any() and not mask.all())
# Few values, so that there are ties; apart enough for the transforms below to keep them apart.
tied = arrays(np.float32, (6, 8), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]))
INCREASING = {
    "exp": np.exp,
    "cube": lambda m: m**3,
    "arctan": np.arctan,
    "scaled": lambda m: 1e-6 * m - 7e-7,
    "rank": lambda m: rankdata(m, method="dense").reshape(m.shape),
    "float64": lambda m: m.astype(np.float64) / 3,
}


def literal_precision(order: list[int], inside: list[bool]) -> float:
    """Mean over the region's pixels of the precision at their ranks."""
    found, total = 0, 0.0
    for place, pixel in enumerate(order, start=1):
        if inside[pixel]:
            found += 1
            total += found / place
    return total / sum(inside)


def literal_iou(saliency_map: np.ndarray, mask: np.ndarray) -> float:
    overlaps = []
    for threshold in saliency_map.ravel():
        above = saliency_map >= threshold
        overlaps.append((above & mask).sum() / (above | mask).sum())
    return max(overlaps)


@settings(deadline=None)
@given(shuffled, masks)
def test_scikit_learn_without_ties(saliency_map, mask):
    expected = average_precision_score(mask.ravel(), saliency_map.ravel())
    assert average_precision(saliency_map[None], [mask])[0] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.int8, (2, 3), elements=st.integers(0, 2)),
    arrays(bool, (2, 3)).filter(lambda mask: mask.any() and not mask.all()),
)
def test_ties_are_the_mean_over_all_their_orders(saliency_map, mask):
    values, inside = saliency_map.ravel().tolist(), mask.ravel().tolist()
    orders = (sorted(order, key=lambda pixel: -values[pixel]) for order in itertools.permutations(range(6)))
    expected = np.mean([literal_precision(order, inside) for order in orders])
    assert average_precision(saliency_map[None], [mask])[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_map_of_plateaus_gets_the_mean_of_random_orders(share):
    rng = np.random.default_rng(0)
    mask = rng.random((20, 25)) < share
    saliency_map = np.floor(3 * rng.random((20, 25)) + mask)
    broken = [saliency_map + 0.5 * rng.random((20, 25)) for _ in range(400)]
    expected = [average_precision_score(mask.ravel(), one.ravel()) for one in broken]
    assert average_precision(saliency_map[None], [mask])[0] == pytest.approx(
        np.mean(expected), abs=5 * np.std(expected) / math.sqrt(400)
    )


@settings(deadline=None)
@given(tied, masks)
def test_iou_is_the_best_of_all_thresholds(saliency_map, mask):
    assert best_iou(saliency_map[None], [mask])[0] == pytest.approx(literal_iou(saliency_map, mask), rel=1e-12)


@settings(deadline=None)
@given(tied, masks, st.sampled_from(sorted(INCREASING)))
def test_increasing_transforms_do_not_matter(saliency_map, mask, name):
    transformed = INCREASING[name](saliency_map)
    assume(len(np.unique(transformed)) == len(np.unique(saliency_map)))
    for measure in (average_precision, best_iou):
        assert measure(transformed[None], [mask]) == measure(saliency_map[None], [mask])


def test_a_constant_map_scores_as_a_random_order():
    maps, box = np.ones((1, 224, 224), dtype=np.float32), (0, 0, 56, 224)
    harmonic = (1 / np.arange(1, 224**2 + 1)).sum()
    expected = 0.25 + 0.75 * (harmonic - 1) / (224**2 - 1)
    assert average_precision(maps, [box])[0] == pytest.approx(expected, rel=1e-12)
    assert average_precision(maps, [box])[0] == pytest.approx(0.25, abs=2.1e-4)
    assert best_iou(maps, [box]) == 0.25


def test_bounds():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:3, 2:6] = True
    for right in (mask.astype(np.float32), mask * np.arange(1.0, 49).reshape(6, 8)):
        assert average_precision(right[None], [mask]) == 1
        assert best_iou(right[None], [mask]) == 1
    wrong = -np.arange(48.0).reshape(6, 8)
    wrong[mask] = np.arange(-100, -92)
    assert average_precision(wrong[None], [mask])[0] == pytest.approx(np.mean([k / (40 + k) for k in range(1, 9)]))
    assert best_iou(wrong[None], [mask])[0] == pytest.approx(8 / 48)


def test_a_single_point_scores_low():
    dot = np.zeros((1, 40, 40))
    dot[0, 20, 20] = 1
    box = (10, 10, 30, 30)
    assert average_precision(dot, [box])[0] == pytest.approx(0.25, abs=0.01)
    assert best_iou(dot, [box]) == 0.25


def test_maps_of_a_batch_are_independent():
    rng = np.random.default_rng(1)
    maps, regions = rng.random((3, 6, 8)), [(0, 0, 3, 4), [(1, 1, 3, 3), (5, 0, 8, 6)], rng.random((6, 8)) > 0.5]
    for measure in (average_precision, best_iou):
        together = measure(torch.from_numpy(maps), regions)
        assert together.shape == (3,)
        assert together.dtype == np.float64
        assert together.tolist() == [measure(maps[i : i + 1], [regions[i]])[0] for i in range(3)]


@pytest.mark.parametrize(("metric", "measure"), [(AveragePrecision, average_precision), (BestIoU, best_iou)])
def test_called_as_a_metric_of_pytorch_grad_cam(metric, measure):
    class NotRun(nn.Module):
        def forward(self, images):
            raise AssertionError("the model must not run")

    images, targets = torch.ones(2, 3, 6, 8), [ClassifierOutputTarget(0)] * 2
    maps, regions = np.random.default_rng(2).random((2, 6, 8)), [(0, 0, 3, 4), (2, 2, 8, 6)]
    np.testing.assert_array_equal(metric(regions)(images, maps, targets, NotRun()), measure(maps, regions))
    with pytest.raises(ValueError, match="got 2 regions for 1 maps"):
        metric(regions)(images[:1], maps[:1], targets[:1], NotRun())
    with pytest.raises(ValueError, match=r"shape .* of the images"):
        metric(regions)(images, maps[:, :4], targets, NotRun())


@pytest.mark.parametrize("measure", [average_precision, best_iou])
def test_invalid_arguments(measure):
    maps = np.zeros((2, 6, 8))
    with pytest.raises(ValueError, match=r"covers the whole map in image \[1\]"):
        measure(maps, [(0, 0, 3, 4), (0, 0, 8, 6)])
    with pytest.raises(ValueError, match="covers no pixel"):
        measure(maps, [(0, 0, 3, 4), np.zeros((6, 8), dtype=bool)])
    with pytest.raises(ValueError, match="NaN"):
        measure(maps * np.nan, [(0, 0, 3, 4)] * 2)
    with pytest.raises(ValueError, match=r"batch \(B, H, W\)"):
        measure(maps[0], [(0, 0, 3, 4)])


@pytest.mark.parametrize("measure", [average_precision, best_iou])
def test_fast_enough_for_every_image(measure):
    maps = np.random.default_rng(3).random((1, 224, 224), dtype=np.float32)
    times = []
    for _ in range(5):
        start = time.process_time()
        measure(maps, [(50, 50, 150, 150)])
        times.append(time.process_time() - start)
    assert min(times) < 0.05
