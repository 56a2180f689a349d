"""Where the object is: boxes and masks, and the form of the metrics that compare a map with them alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from holistic_cam_plugin.metrics.scoring import as_array, check_inputs
from holistic_cam_plugin.passes.targets import Target

__all__ = ["RegionMetric", "region_mask", "region_masks"]


class RegionMetric(ABC):
    """A measure of maps and regions in the library's calling form.

    Args:
        regions: one an image of the batch that the metric is called on, boxes or masks as in `region_mask`.

    Raises:
        TypeError: `regions` is no list.
    """

    def __init__(self, regions: Sequence[ArrayLike]) -> None:
        if isinstance(regions, (str, bytes)) or not hasattr(regions, "__len__"):
            raise TypeError(f"regions must be a list, one an image, such as [(8, 8, 40, 40)], got {regions!r}")
        self.regions = regions

    def __call__(
        self, input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
    ) -> NDArray[np.float64]:
        """The value of each map, `(B,)`; the model does not run.

        Raises:
            TypeError, ValueError: inputs that do not belong together, and as in the function of the same name.
        """
        _, maps = check_inputs(input_tensor, cams, targets, model)
        return self._measure(maps)

    @abstractmethod
    def _measure(self, maps: NDArray[np.floating]) -> NDArray[np.float64]:
        """The value of each map, `(B,)`."""


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
    array = as_array(region)
    if array.dtype == np.bool_:
        mask = _mask_union(array, height, width)
    elif array.dtype.kind in "iuf":
        mask = _box_union(array, height, width)
    else:
        raise TypeError(f"a region must be boxes (numbers) or a boolean mask, got dtype {array.dtype}")
    if not mask.any():
        raise ValueError(f"the region covers no pixel of the {height}x{width} map")
    return mask


def region_masks(regions: Sequence[ArrayLike], shape: tuple[int, ...], *, proper: bool = False) -> NDArray[np.bool_]:
    """The masks of a batch of maps.

    Args:
        regions: one a map, boxes or masks as in `region_mask`; several of them count as their union.
        shape: of the maps, `(B, H, W)`.
        proper: refuse a region that covers its whole map, which no map could miss.

    Returns:
        `(B, H, W)`.

    Raises:
        TypeError, ValueError: another number of regions than maps, and as in `region_mask`.
    """
    images, height, width = shape
    if len(regions) != images:
        raise ValueError(f"got {len(regions)} regions for {images} maps: name the boxes or the mask of every image")
    masks = np.stack([region_mask(region, height, width) for region in regions])
    if proper and (full := masks.all(axis=(1, 2))).any():
        raise ValueError(
            f"the region covers the whole map in image {np.flatnonzero(full).tolist()}: any map is right there, leave "
            "such images out"
        )
    return masks


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
