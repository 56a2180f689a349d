r"""Lucidity: how much of the object the map highlights.

$$\mathrm{lucidity} = \frac{|\{M > \tau \max M\} \cap O|}{|O|}$$

where $M$ is the map, $O$ the set of the object's pixels and $\tau$ a share of the maximum. A single point scores low. A
map that is bright everywhere scores 1, so read lucidity next to a measure of localisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holistic_cam_plugin.checks import is_number
from holistic_cam_plugin.metrics.inputs import scale_maps
from holistic_cam_plugin.metrics.regions import RegionMetric, rasterize_regions

__all__ = ["Lucidity", "lucidity"]

SHARE = 0.1


def lucidity(cams: Any, regions: Sequence[ArrayLike], share: float = SHARE) -> NDArray[np.float64]:
    """Share of each region's pixels that lie above a share of the map's maximum.

    Args:
        cams: maps `(B, H, W)`, non-negative.
        regions: one per map, boxes or masks as in `rasterize_region`.
        share: of the maximum, in [0, 1).

    Returns:
        `(B,)`, in [0, 1]; 0 for a map of zeros.

    Raises:
        TypeError, ValueError: a map is negative or not finite, a region is empty or does not fit its map, or `share` is
            out of range.

    Example:
        >>> lucidity([[[1.0, 0.6], [0.05, 0.0]]], regions=[(0, 0, 1, 2)])
        array([0.5])
    """
    _check_share(share)
    maps = scale_maps(cams)
    masks = rasterize_regions(regions, maps.shape)
    shown = maps > float(share) * maps.max(axis=(1, 2), keepdims=True)
    return np.asarray((shown & masks).sum(axis=(1, 2)) / masks.sum(axis=(1, 2)), dtype=np.float64)


class Lucidity(RegionMetric):
    """`lucidity` as a metric of pytorch-grad-cam.

    Args:
        regions, share: as in `lucidity`.

    Raises:
        TypeError, ValueError: `share` is out of range, or `regions` is not a list.

    Example:
        >>> images, cams = torch.rand(1, 3, 2, 2), [[[1.0, 0.6], [0.05, 0.0]]]
        >>> Lucidity(regions=[(0, 0, 1, 2)])(images, cams, targets=[lambda output: output[0]], model=nn.ReLU())
        array([0.5])
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
