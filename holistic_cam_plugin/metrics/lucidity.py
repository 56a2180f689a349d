r"""Lucidity: how much of the object the map shows.

$$\mathrm{lucidity} = \frac{|\{M > \tau \max M\} \cap O|}{|O|}$$

where $M$ is the map, $O$ the object's pixels and $\tau$ a share of the maximum. A dot shows next to nothing of its
object, wherever it lies. A map that is bright everywhere shows all of it: read it beside a measure of localisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holistic_cam_plugin.metrics.regions import RegionMetric, region_masks
from holistic_cam_plugin.metrics.scoring import is_number, unit_maps

__all__ = ["Lucidity", "lucidity"]

SHARE = 0.1


def lucidity(cams: Any, regions: Sequence[ArrayLike], share: float = SHARE) -> NDArray[np.float64]:
    """Share of each region in which its map lies above a share of the map's maximum.

    Args:
        cams: maps `(B, H, W)`, never negative.
        regions: one an image, boxes or masks as in `region_mask`; several of them count as their union.
        share: of the maximum, in [0, 1).

    Returns:
        `(B,)` in [0, 1]; 0 for a map that is zero everywhere, which shows nothing.

    Raises:
        TypeError, ValueError: maps that are negative or not finite, regions that are empty or do not fit, a share out
            of range.
    """
    _check_share(share)
    maps = unit_maps(cams)
    masks = region_masks(regions, maps.shape)
    shown = maps > float(share) * maps.max(axis=(1, 2), keepdims=True)
    return np.asarray((shown & masks).sum(axis=(1, 2)) / masks.sum(axis=(1, 2)), dtype=np.float64)


class Lucidity(RegionMetric):
    """`lucidity` in the library's calling form.

    Args:
        regions: one an image of the batch that the metric is called on.
        share: as in `lucidity`.

    Raises:
        TypeError, ValueError: a share out of range, or regions that are no list.
    """

    def __init__(self, regions: Sequence[ArrayLike], share: float = SHARE) -> None:
        super().__init__(regions)
        _check_share(share)
        self.share = share

    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        return lucidity(maps, self.regions, self.share)


def _check_share(share: float) -> None:
    if not is_number(share) or not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share!r}")
