r"""Localisation by order: does the map rank the object's pixels above the others?

Only the order of the pixels counts, so that no strictly increasing transform of a map changes its score: neither a
power nor a logarithm helps. A dot does not either: it ranks few of the object's pixels.

$$\mathrm{AP} = \frac{1}{|O|} \sum_{k=1}^{n} r_k \, \frac{\sum_{j \le k} r_j}{k}, \qquad
\mathrm{IoU}^* = \max_t \frac{|\{M \ge t\} \cap O|}{|\{M \ge t\} \cup O|}$$

where $M$ is the map, $O$ the object's pixels, and $r_k$ is 1 if the pixel at place $k$ of the map's descending order
belongs to the object, else 0.

Equal pixels have no order. AP is then its expectation when all their orders are equally likely: McSherry and Najork,
"Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR 2008. IoU needs
no order: a threshold takes or leaves equal pixels together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holistic_cam_plugin.metrics.regions import RegionMetric, region_masks
from holistic_cam_plugin.metrics.scoring import check_maps

__all__ = ["AveragePrecision", "BestIoU", "average_precision", "best_iou"]


def average_precision(cams: Any, regions: Sequence[ArrayLike]) -> NDArray[np.float64]:
    r"""Average precision of each map's pixels as a ranking of its region's; higher is better.

    Without ties it is scikit-learn's `average_precision_score`, which takes equal pixels at once; here it is the mean
    over their orders. A constant map gets what a random order gets in expectation: $s + (1 - s)(H_n - 1)/(n - 1)$ for a
    region with the share $s$ of $n$ pixels and the harmonic number $H_n$, at most 0.0002 above $s$ for 224 x 224.

    Args:
        cams: maps `(B, H, W)`, finite, in any unit.
        regions: one an image, boxes or masks as in `region_mask`; several of them count as their union.

    Returns:
        `(B,)`, above 0 and at most 1.

    Raises:
        TypeError, ValueError: maps that are not finite, regions that are empty, cover the whole map or do not fit.
    """
    return np.array([_expected_precision(levels) for levels in _levels(cams, regions)], dtype=np.float64)


def best_iou(cams: Any, regions: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Best intersection over union of each region and the pixels above a threshold, over all thresholds.

    Args:
        cams, regions: as in `average_precision`.

    Returns:
        `(B,)` in [s, 1] for a region with the share s of the pixels: s is what a threshold below the whole map gets.

    Raises:
        TypeError, ValueError: as in `average_precision`.
    """
    return np.array([_best_overlap(levels) for levels in _levels(cams, regions)], dtype=np.float64)


class AveragePrecision(RegionMetric):
    """`average_precision` in the library's calling form."""

    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        return average_precision(maps, self.regions)


class BestIoU(RegionMetric):
    """`best_iou` in the library's calling form."""

    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        return best_iou(maps, self.regions)


class _Levels(NamedTuple):
    """The pixels of one map by value, the highest value first; one entry a distinct value."""

    pixels: NDArray[np.intp]
    inside: NDArray[np.intp]  # those that belong to the region


def _levels(cams: Any, regions: Sequence[ArrayLike]) -> list[_Levels]:
    maps = check_maps(cams)
    masks = region_masks(regions, maps.shape, proper=True)
    levels = []
    for saliency_map, mask in zip(maps, masks, strict=True):
        distinct, level = np.unique(-saliency_map.ravel(), return_inverse=True)
        counts = (np.bincount(level[some], minlength=len(distinct)) for some in (slice(None), mask.ravel()))
        levels.append(_Levels(*counts))
    return levels


def _expected_precision(levels: _Levels) -> float:
    """Mean over the orders of equal pixels, pixel by pixel: a pixel of the region comes at each place of its level with
    the same probability, and the level's other pixels of the region are spread evenly over the level's other places.
    """
    pixels, inside = levels
    place = np.arange(1, pixels.sum() + 1)  # in the whole order
    within = place - np.repeat(pixels.cumsum() - pixels, pixels)  # in the pixel's level
    likely = np.repeat(inside / pixels, pixels)
    higher = np.repeat(inside.cumsum() - inside, pixels)
    others = np.repeat((inside - 1) / np.maximum(pixels - 1, 1), pixels)
    precision = (higher + 1 + (within - 1) * others) / place
    return float((likely * precision).sum() / inside.sum())


def _best_overlap(levels: _Levels) -> float:
    above, hits = levels.pixels.cumsum(), levels.inside.cumsum()
    return float((hits / (above + hits[-1] - hits)).max())
