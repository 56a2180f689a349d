r"""Energy-based pointing game: the share of the map's energy that falls onto the object.

$$\mathrm{EPG} = \frac{\sum_{(i,j) \in \text{box}} M_{ij}}{\sum_{(i,j)} M_{ij}}$$

Paper: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops
2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holistic_cam_plugin.method.pyramid import check_positive_integer
from holistic_cam_plugin.metrics.order import relevance_ranks
from holistic_cam_plugin.metrics.regions import RegionMetric, region_masks
from holistic_cam_plugin.metrics.scoring import unit_maps

__all__ = ["EnergyPointingGame", "energy_pointing_game"]


def energy_pointing_game(cams: Any, regions: Sequence[ArrayLike], top_k: int | None = None) -> NDArray[np.float64]:
    """Share of each map's energy inside its region; higher is better.

    It rewards concentration: one pixel in the right place scores 1, and a map that peaks there gains by any power above
    1. It can't see how much of the object the map shows; `average_precision`, `best_iou` and `lucidity` do.

    Args:
        cams: maps `(B, H, W)`, never negative.
        regions: one an image, boxes or masks as in `region_mask`; several of them count as their union.
        top_k: look at the map's k highest pixels alone (equal ones row by row). None: at all of them.

    Returns:
        `(B,)` in [0, 1]; 0 for a map that is zero everywhere, which points nowhere.

    Raises:
        TypeError, ValueError: maps that are negative or not finite, regions that are empty or do not fit.
    """
    maps = unit_maps(cams).astype(np.float64)
    masks = region_masks(regions, maps.shape)
    _check_top(top_k)
    if top_k is not None:
        maps = np.where(relevance_ranks(maps) < top_k, maps, 0)
    energy = maps.sum(axis=(1, 2))
    inside = np.where(masks, maps, 0).sum(axis=(1, 2))
    share: NDArray[np.float64] = np.divide(inside, energy, out=np.zeros_like(energy), where=energy > 0)
    return share


class EnergyPointingGame(RegionMetric):
    """`energy_pointing_game` in the library's calling form.

    Args:
        regions: one an image of the batch that the metric is called on.
        top_k: as in `energy_pointing_game`; the paper mentions 100.

    Raises:
        TypeError, ValueError: a count below 1, or regions that are no list.
    """

    def __init__(self, regions: Sequence[ArrayLike], top_k: int | None = None) -> None:
        super().__init__(regions)
        _check_top(top_k)
        self.top_k = top_k

    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        return energy_pointing_game(maps, self.regions, self.top_k)


def _check_top(top_k: int | None) -> None:
    if top_k is not None:
        check_positive_integer("top_k", top_k)
