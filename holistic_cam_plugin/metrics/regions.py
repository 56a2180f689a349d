"""Regions of objects, as boxes or masks, and the base class of the metrics that use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from holistic_cam_plugin.metrics.inputs import check_inputs, to_array
from holistic_cam_plugin.passes.targets import Target

__all__ = ["RegionMetric", "rasterize_region", "rasterize_regions"]


class RegionMetric(ABC):
    """Base class of metrics that compare maps with the regions of objects.

    Args:
        regions: one per image, boxes or masks as in `rasterize_region`.

    Raises:
        TypeError: `regions` is not a list.
    """

    def __init__(self, regions: Sequence[ArrayLike]) -> None:
        if isinstance(regions, (str, bytes)) or not hasattr(regions, "__len__"):
            raise TypeError(f"regions must be a list, one per image, such as [(8, 8, 40, 40)], got {regions!r}")
        self.regions = regions

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """Compute the metric of each map, `(B,)`, without running the model.

        Raises:
            TypeError, ValueError: the arguments do not fit together or the underlying function rejects them.
        """
        _, maps = check_inputs(input_tensor, cams, targets, model)
        return self._measure(maps)

    @abstractmethod
    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the metric of each map, `(B,)`."""


def rasterize_region(region: ArrayLike, height: int, width: int) -> NDArray[np.bool_]:
    """Convert boxes or masks to one mask of pixels, their union.

    Args:
        region: one box `(4,)` or boxes `(N, 4)`, each x_min, y_min, x_max, y_max in pixels of the map; a pixel lies
            inside if its centre does, so that integers select the columns x_min to x_max - 1. Or boolean masks,
            `(H, W)` or `(N, H, W)`.
        height, width: size of the map in pixels.

    Returns:
        `(height, width)`, bool.

    Raises:
        TypeError: `region` is neither numbers nor booleans.
        ValueError: `region` has another shape, a box is empty, or no pixel lies inside.

    Example:
        >>> rasterize_region((1, 0, 3, 1), height=2, width=4)
        array([[False,  True,  True, False],
               [False, False, False, False]])
    """
    array = to_array(region)
    if array.dtype == np.bool_:
        mask = _join_masks(array, height, width)
    elif array.dtype.kind in "iuf":
        mask = _join_boxes(array, height, width)
    else:
        raise TypeError(f"a region must be boxes (numbers) or a boolean mask, got dtype {array.dtype}")
    if not mask.any():
        raise ValueError(f"the region covers no pixel of the {height}x{width} map")
    return mask


def rasterize_regions(
    regions: Sequence[ArrayLike], shape: tuple[int, ...], *, proper: bool = False
) -> NDArray[np.bool_]:
    """Convert the regions of a batch of maps with `rasterize_region`.

    Args:
        regions: one per map.
        shape: shape of the maps, `(B, H, W)`.
        proper: raise ValueError if a region covers its whole map.

    Returns:
        `(B, H, W)`, bool.

    Raises:
        TypeError, ValueError: the number of regions differs from the number of maps, or as in `rasterize_region`.
    """
    images, height, width = shape
    if len(regions) != images:
        raise ValueError(f"got {len(regions)} regions for {images} maps: pass the boxes or the mask of every image")
    masks = np.stack([rasterize_region(region, height, width) for region in regions])
    if proper and (full := masks.all(axis=(1, 2))).any():
        raise ValueError(
            f"the region covers the whole map in image {np.flatnonzero(full).tolist()}, where any map is right: leave "
            "such images out"
        )
    return masks


def _join_masks(array: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
    if array.ndim not in (2, 3) or array.shape[-2:] != (height, width):
        raise ValueError(f"a mask must have the map's size {height}x{width}, got shape {array.shape}")
    return np.asarray(array.reshape(-1, height, width).any(axis=0))


def _join_boxes(array: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
    if array.ndim not in (1, 2) or array.shape[-1] != 4:
        raise ValueError(
            f"boxes must have the shape (N, 4), got {array.shape}; masks must be boolean: mask.astype(bool)"
        )
    union = np.zeros((height, width), dtype=np.bool_)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    for left, top, right, bottom in array.reshape(-1, 4).tolist():
        if not (left < right and top < bottom):
            raise ValueError(f"a box must have x_min < x_max and y_min < y_max, got {[left, top, right, bottom]}")
        union |= (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
    return union
