"""Tiles: overlapping windows of the native size that cover an enlarged image, for models that take no other size.

Every window goes through the model as an image of its own. Its activations and gradients are put back where the window
lay on the enlarged grid; where windows overlap, they are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Cover", "common_cell", "cover", "cut", "stitch"]

# Neighbours share at least this part of a window: the model sees nothing beyond a window's border.
OVERLAP = 8


class Cover(NamedTuple):
    """How windows cover an enlarged image; all in pixels, height and width.

    Attributes:
        size: of the enlarged image, so that the windows lie on whole cells of the layers' grids.
        window: of every window.
        origins: the upper left corner of every window.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    origins: list[tuple[int, ...]]


def cover(size: tuple[int, ...], window: tuple[int, ...], cell: int) -> Cover:
    """Windows that cover an image of about this size.

    Args:
        size: of the enlarged image.
        window: the native size.
        cell: the layers' common stride; sizes and origins are rounded to it.

    Raises:
        ValueError: the image is smaller than a window.
    """
    if any(side < least for side, least in zip(size, window, strict=True)):
        raise ValueError(
            f"tiles=True can't cover an image of {size[0]}x{size[1]} px with windows of the native "
            f"{window[0]}x{window[1]} px: choose sizes of at least the image's own"
        )
    axes = [_axis(side, least, cell) for side, least in zip(size, window, strict=True)]
    return Cover(tuple(side for side, _ in axes), window, list(product(*(origins for _, origins in axes))))


def common_cell(grids: Sequence[tuple[int, ...]], window: tuple[int, ...]) -> int:
    """The least common stride in pixels of layers with these grids; 1 if there is none within a quarter window."""
    strides = [side / cells for grid in grids for side, cells in zip(window, grid, strict=True)]
    if any(stride != round(stride) for stride in strides):
        return 1
    cell = math.lcm(*(round(stride) for stride in strides))
    return cell if cell <= min(window) // 4 else 1


def cut(image: Tensor, covered: Cover) -> Tensor:
    """The windows of one image `(1, C, *covered.size)`: `(windows, C, *covered.window)`."""
    height, width = covered.window
    return torch.cat([image[..., y : y + height, x : x + width] for y, x in covered.origins])


def stitch(maps: Tensor, covered: Cover) -> Tensor:
    """The windows' maps on the enlarged grid, their mean where they overlap.

    Args:
        maps: `(windows, C, h, w)`.
        covered: where the windows lay.

    Returns:
        `(1, C, h', w')`, cells of the same size in pixels as in the windows, up to rounding.
    """
    grid = maps.shape[2:]
    ratios = [cells / side for cells, side in zip(grid, covered.window, strict=True)]
    height, width = (max(c, round(side * r)) for side, r, c in zip(covered.size, ratios, grid, strict=True))
    total = maps.new_zeros(1, maps.shape[1], height, width)
    count = maps.new_zeros(1, 1, height, width)
    for origin, part in zip(covered.origins, maps, strict=True):
        y, x = (round(start * ratio) for start, ratio in zip(origin, ratios, strict=True))
        y, x = min(y, height - grid[0]), min(x, width - grid[1])
        total[0, :, y : y + grid[0], x : x + grid[1]] += part
        count[..., y : y + grid[0], x : x + grid[1]] += 1
    return total / count


def _axis(side: int, window: int, cell: int) -> tuple[int, list[int]]:
    """The rounded side and the windows' first pixels along it."""
    rounded = max(window, round(side / cell) * cell)
    if rounded == window:
        return window, [0]
    overlap = max(window // OVERLAP, cell)
    steps = math.ceil((rounded - window) / (window - overlap))
    return rounded, [round((rounded - window) * step / steps / cell) * cell for step in range(steps + 1)]
