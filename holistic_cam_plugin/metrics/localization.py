r"""Localisation by order: does the map rank the pixels of the object above the others?

$$\mathrm{AP} = \frac{1}{|O|} \sum_{k=1}^{n} r_k \, \frac{\sum_{j \le k} r_j}{k}, \qquad
\mathrm{IoU}^* = \max_t \frac{|\{M \ge t\} \cap O|}{|\{M \ge t\} \cup O|}$$

where $M$ is the map, $O$ the set of the object's pixels, and $r_k$ is 1 if the pixel of rank $k$ in descending order of
the map belongs to the object and 0 otherwise. Both depend on the order of the pixels only, so no strictly increasing
transform of the map changes them, and a map that highlights a single point scores low, wherever the point lies.

If pixels are tied, AP is its expectation over all orders of the tied pixels: McSherry and Najork, "Computing
Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holistic_cam_plugin.metrics.inputs import check_maps
from holistic_cam_plugin.metrics.regions import RegionMetric, rasterize_regions

__all__ = ["AveragePrecision", "BestIoU", "average_precision", "best_iou"]


def average_precision(cams: Any, regions: Sequence[ArrayLike]) -> NDArray[np.float64]:
    r"""Average precision of each map's pixels as a ranking of the region's pixels; higher is better.

    Equal to scikit-learn's `average_precision_score` if no pixels are tied. A constant map gets the expectation of a
    random order, $s + (1 - s)(H_n - 1)/(n - 1)$, where $s$ is the region's share of the $n$ pixels and $H_n$ the
    harmonic number; this exceeds $s$ by at most 0.0002 for 224 x 224 pixels.

    Args:
        cams: maps `(B, H, W)`, finite, in any unit.
        regions: one per map, boxes or masks as in `rasterize_region`.

    Returns:
        `(B,)`, in (0, 1].

    Raises:
        TypeError, ValueError: a map is not finite, or a region is empty, covers its whole map or does not fit it.

    Example:
        >>> average_precision([[[0.9, 0.1], [0.5, 0.2]]], regions=[(0, 0, 1, 1)])
        array([1.])
        >>> average_precision([[[0.9, 0.1], [0.5, 0.2]]], regions=[(0, 1, 1, 2)])
        array([0.5])
    """
    return np.array([_expected_precision(levels) for levels in _count_levels(cams, regions)], dtype=np.float64)


def best_iou(cams: Any, regions: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Largest intersection over union, over all thresholds, of each region and the pixels at or above the threshold.

    Args:
        cams, regions: as in `average_precision`.

    Returns:
        `(B,)`, in [s, 1], where s is the region's share of the pixels: the value of a constant map.

    Raises:
        TypeError, ValueError: as in `average_precision`.

    Example:
        >>> best_iou([[[0.9, 0.1], [0.5, 0.2]]], regions=[(0, 1, 1, 2)])
        array([0.5])
    """
    return np.array([_best_overlap(levels) for levels in _count_levels(cams, regions)], dtype=np.float64)


class AveragePrecision(RegionMetric):
    """`average_precision` as a metric of pytorch-grad-cam.

    Args:
        regions: one per image, boxes or masks as in `rasterize_region`.

    Example:
        >>> images, cams = torch.rand(1, 3, 2, 2), [[[0.9, 0.1], [0.5, 0.2]]]
        >>> AveragePrecision(regions=[(0, 0, 1, 1)])(images, cams, targets=[lambda output: output[0]], model=nn.ReLU())
        array([1.])
    """

    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        return average_precision(maps, self.regions)


class BestIoU(RegionMetric):
    """`best_iou` as a metric of pytorch-grad-cam.

    Args:
        regions: one per image, boxes or masks as in `rasterize_region`.

    Example:
        >>> images, cams = torch.rand(1, 3, 2, 2), [[[0.9, 0.1], [0.5, 0.2]]]
        >>> BestIoU(regions=[(0, 0, 1, 1)])(images, cams, targets=[lambda output: output[0]], model=nn.ReLU())
        array([1.])
    """

    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        return best_iou(maps, self.regions)


class _Levels(NamedTuple):
    """Number of pixels per distinct value of a map, in descending order of the values."""

    pixels: NDArray[np.intp]
    inside: NDArray[np.intp]  # those of the region


def _count_levels(cams: Any, regions: Sequence[ArrayLike]) -> list[_Levels]:
    maps = check_maps(cams)
    masks = rasterize_regions(regions, maps.shape, proper=True)
    levels = []
    for saliency_map, mask in zip(maps, masks, strict=True):
        distinct, level = np.unique(-saliency_map.ravel(), return_inverse=True)
        counts = (np.bincount(level[some], minlength=len(distinct)) for some in (slice(None), mask.ravel()))
        levels.append(_Levels(*counts))
    return levels


def _expected_precision(levels: _Levels) -> float:
    """Average over the orders of tied pixels: a pixel of the region is equally likely at each rank of its level, and
    the level's other pixels of the region are spread evenly over the remaining ranks.
    """
    pixels, inside = levels
    rank = np.arange(1, pixels.sum() + 1)
    within = rank - np.repeat(pixels.cumsum() - pixels, pixels)  # rank within the level
    probability = np.repeat(inside / pixels, pixels)
    higher = np.repeat(inside.cumsum() - inside, pixels)
    others = np.repeat((inside - 1) / np.maximum(pixels - 1, 1), pixels)
    precision = (higher + 1 + (within - 1) * others) / rank
    return float((probability * precision).sum() / inside.sum())


def _best_overlap(levels: _Levels) -> float:
    above, hits = levels.pixels.cumsum(), levels.inside.cumsum()
    return float((hits / (above + hits[-1] - hits)).max())
