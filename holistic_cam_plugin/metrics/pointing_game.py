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
from torch import Tensor, nn

from holistic_cam_plugin.method.pyramid import check_positive_integer
from holistic_cam_plugin.metrics.order import relevance_ranks
from holistic_cam_plugin.metrics.scoring import check_inputs, check_maps
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EnergyPointingGame", "energy_pointing_game", "region_mask"]


def energy_pointing_game(cams: Any, regions: Sequence[ArrayLike], top_k: int | None = None) -> NDArray[np.float64]:
    """Share of each map's energy inside its region; higher is better.

    Args:
        cams: maps `(B, H, W)`, never negative.
        regions: one an image, boxes or masks as in `region_mask`; several of them count as their union.
        top_k: look at the map's k highest pixels alone (equal ones row by row). None: at all of them.

    Returns:
        `(B,)` in [0, 1]; 0 for a map that is zero everywhere, which points nowhere.

    Raises:
        TypeError, ValueError: maps that are negative or not finite, regions that are empty or do not fit.
    """
    maps = check_maps(cams).astype(np.float64)
    if (maps < 0).any():
        raise ValueError(f"a map's energy can't be negative, but cams go down to {maps.min():g}")
    if len(regions) != len(maps):
        raise ValueError(f"got {len(regions)} regions for {len(maps)} maps: name the boxes or the mask of every image")
    height, width = maps.shape[1:]
    masks = np.stack([region_mask(region, height, width) for region in regions])
    if top_k is not None:
        check_positive_integer("top_k", top_k)
        maps = np.where(relevance_ranks(maps) < top_k, maps, 0)
    energy = maps.sum(axis=(1, 2))
    inside = np.where(masks, maps, 0).sum(axis=(1, 2))
    share: NDArray[np.float64] = np.divide(inside, energy, out=np.zeros_like(energy), where=energy > 0)
    return share


def region_mask(region: ArrayLike, height: int, width: int) -> NDArray[np.bool_]:
    """A region as a mask of pixels.

    Args:
        region: boxes `(N, 4)` or one box `(4,)`, each x_min, y_min, x_max, y_max in pixels of the map, with 0, 0 its
            upper left corner: a pixel lies inside if its centre does, so that whole numbers give the columns x_min to
            x_max - 1. Or boolean masks, `(H, W)` or `(N, H, W)`.
        height, width: of the map in pixels.

    Returns:
        The union, `(height, width)`.

    Raises:
        TypeError: neither boolean masks nor numbers.
        ValueError: another shape, a box without extent, or a region that covers no pixel.
    """
    array = np.asarray(region.cpu() if isinstance(region, Tensor) else region)
    if array.dtype == np.bool_:
        mask = _mask_union(array, height, width)
    elif np.issubdtype(array.dtype, np.number):
        mask = _box_union(array, height, width)
    else:
        raise TypeError(f"a region must be boxes (numbers) or a boolean mask, got dtype {array.dtype}")
    if not mask.any():
        raise ValueError(f"the region covers no pixel of the {height}x{width} map")
    return mask


class EnergyPointingGame:
    """`energy_pointing_game` in the library's calling form.

    Args:
        regions: one an image of the batch that the metric is called on.
        top_k: as in `energy_pointing_game`; the paper mentions 100.
    """

    def __init__(self, regions: Sequence[ArrayLike], top_k: int | None = None) -> None:
        self.regions = regions
        self.top_k = top_k

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """The share of each map, `(B,)`; the model does not run.

        Raises:
            TypeError, ValueError: inputs that do not belong together, and as in `energy_pointing_game`.
        """
        _, maps = check_inputs(input_tensor, cams, targets, model)
        return energy_pointing_game(maps, self.regions, self.top_k)


def _mask_union(array: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
    if array.ndim not in (2, 3) or array.shape[-2:] != (height, width):
        raise ValueError(f"a mask must have the map's size {height}x{width}, got shape {array.shape}")
    return np.asarray(array.reshape(-1, height, width).any(axis=0))


def _box_union(array: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
    if array.ndim not in (1, 2) or array.shape[-1] != 4:
        raise ValueError(
            f"boxes must have the shape (N, 4), got {array.shape}; for a mask pass booleans (mask.astype(bool))"
        )
    union = np.zeros((height, width), dtype=np.bool_)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    for left, top, right, bottom in array.reshape(-1, 4):
        if not (left < right and top < bottom):
            raise ValueError(
                f"an empty box: {[left, top, right, bottom]} must be x_min < x_max, y_min < y_max (two corners)"
            )
        union |= (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
    return union
