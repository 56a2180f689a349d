"""Tiles: overlapping windows of the original size that cover an enlarged image, for models of fixed size.

Every window is an image for the model. Its activations and gradients are put back at its place on the enlarged grid,
and averaged where windows overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Cover", "common_cell", "cover", "cut", "stitch"]

# Neighbours share at least an eighth of a window, because the model sees nothing beyond a window's border.
OVERLAP = 8


class Cover(NamedTuple):
    """Windows that cover an enlarged image; height and width in pixels.

    Attributes:
        size: of the enlarged image, rounded so that windows begin at whole cells of the layers' grids.
        window: of every window.
        origins: the upper left corners of the windows.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    origins: list[tuple[int, ...]]


def cover(size: tuple[int, ...], window: tuple[int, ...], cell: int) -> Cover:
    """Cover an image of about this size with windows.

    Args:
        size: of the enlarged image.
        window: the original size.
        cell: the layers' common stride, to which sizes and origins are rounded.

    Raises:
        ValueError: the image is smaller than a window.
    """
    if any(side < least for side, least in zip(size, window, strict=True)):
        raise ValueError(
            f"tiles=True cannot cover {size[0]}x{size[1]} px with windows of the original {window[0]}x{window[1]} px: "
            "pass sizes that are not smaller than the image"
        )
    axes = [_axis(side, least, cell) for side, least in zip(size, window, strict=True)]
    return Cover(tuple(side for side, _ in axes), window, list(product(*(origins for _, origins in axes))))


def common_cell(grids: Sequence[tuple[int, ...]], window: tuple[int, ...]) -> int:
    """The least common stride in pixels of layers with these grids; 1 if it exceeds a quarter of the window."""
    strides = [side / cells for grid in grids for side, cells in zip(window, grid, strict=True)]
    if any(stride != round(stride) for stride in strides):
        return 1
    cell = math.lcm(*(round(stride) for stride in strides))
    return cell if cell <= min(window) // 4 else 1


def cut(image: Tensor, covering: Cover) -> Tensor:
    """The windows of one image `(1, C, *covered.size)`: `(windows, C, *covered.window)`."""
    height, width = covering.window
    return torch.cat([image[..., y : y + height, x : x + width] for y, x in covering.origins])


def stitch(maps: Tensor, covering: Cover) -> Tensor:
    """Join the windows' maps on the enlarged grid; where windows overlap, to their mean.

    Args:
        maps: `(windows, C, h, w)`.
        covered: the windows.

    Returns:
        `(1, C, h', w')`, whose cells have the same size in pixels as those of the windows, up to rounding.
    """
    grid = maps.shape[2:]
    ratios = [cells / side for cells, side in zip(grid, covering.window, strict=True)]
    height, width = (max(c, round(side * r)) for side, r, c in zip(covering.size, ratios, grid, strict=True))
    total = maps.new_zeros(1, maps.shape[1], height, width)
    count = maps.new_zeros(1, 1, height, width)
    for origin, part in zip(covering.origins, maps, strict=True):
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
