r"""Energy-based pointing game: the share of the map's energy inside the object's region.

$$\mathrm{EPG} = \frac{\sum_{(i,j) \in \text{box}} M_{ij}}{\sum_{(i,j)} M_{ij}}$$

Paper: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops
2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holistic_cam_plugin.checks import check_positive_integer
from holistic_cam_plugin.metrics.inputs import scale_maps
from holistic_cam_plugin.metrics.order import rank_pixels
from holistic_cam_plugin.metrics.regions import RegionMetric, rasterize_regions

__all__ = ["EnergyPointingGame", "energy_pointing_game"]


def energy_pointing_game(cams: Any, regions: Sequence[ArrayLike], top_k: int | None = None) -> NDArray[np.float64]:
    """Share of each map's energy inside its region; higher is better.

    It rewards concentration: a single pixel inside the region scores 1, and raising a map that peaks there to a power
    above 1 raises its score. How much of the object the map shows is measured by `average_precision`, `best_iou` and
    `lucidity`.

    Args:
        cams: maps `(B, H, W)`, non-negative.
        regions: one per map, boxes or masks as in `rasterize_region`.
        top_k: use the k highest pixels of each map only; ties are broken row by row. None: all pixels.

    Returns:
        `(B,)`, in [0, 1]; 0 for a map of zeros.

    Raises:
        TypeError, ValueError: a map is negative or not finite, or a region is empty or does not fit its map.

    Example:
        >>> energy_pointing_game([[[0.6, 0.2], [0.2, 0.0]]], regions=[(0, 0, 1, 2)])
        array([0.8])
    """
    maps = scale_maps(cams).astype(np.float64)
    masks = rasterize_regions(regions, maps.shape)
    _check_top(top_k)
    if top_k is not None:
        maps = np.where(rank_pixels(maps) < top_k, maps, 0)
    energy = maps.sum(axis=(1, 2))
    inside = np.where(masks, maps, 0).sum(axis=(1, 2))
    share: NDArray[np.float64] = np.divide(inside, energy, out=np.zeros_like(energy), where=energy > 0)
    return share


class EnergyPointingGame(RegionMetric):
    """`energy_pointing_game` as a metric of pytorch-grad-cam.

    Args:
        regions, top_k: as in `energy_pointing_game`; the paper mentions `top_k=100`.

    Raises:
        TypeError, ValueError: `top_k` is below 1, or `regions` is not a list.

    Example:
        >>> images, cams = torch.rand(1, 3, 2, 2), [[[0.6, 0.2], [0.2, 0.0]]]
        >>> EnergyPointingGame([(0, 0, 1, 2)])(images, cams, targets=[lambda output: output[0]], model=nn.ReLU())
        array([0.8])
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
