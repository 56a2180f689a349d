"""The layers of a model that return maps, and the layouts of these maps.

Maps are `(B, C, h, w)`, `(B, h, w, C)`, or tokens `(B, N, C)`: a few prefix tokens, then the grid row by row, or unit
by unit as in Hiera. A layout is believed if its maps change where the picture does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from holistic_cam_plugin.reshape_transforms import (
    swin_reshape_transform,
    unit_reshape_transform,
    vit_reshape_transform,
)

__all__ = [
    "CHANNELS_FIRST",
    "CHANNELS_LAST",
    "TOKENS",
    "Grid",
    "Layer",
    "build_reshape_transform",
    "is_grid",
    "leave_out_blocks",
    "list_channel_axes",
]

# A block has the grids of its input and its output; a module with more is a trunk of several stages. So is one with two
# and most of the layers, where hardly any stages are left without it.
_GRIDS_OF_A_BLOCK = 2
_MOST = 0.5
# Adaptive pooling returns the same grid at every scale; the others return their input.
_NO_FEATURES = re.compile("Adaptive|Drop|Identity|Permute")
CHANNELS_FIRST, CHANNELS_LAST, TOKENS = "(B, C, h, w)", "(B, h, w, C)", "(B, N, C)"

Grid = tuple[int, int]


class Layer(NamedTuple):
    """A module and its output.

    Attributes:
        name: name of the module in the model.
        module: the module.
        shape: shape of the tensor that it returned, or of the first tensor in a tuple.
        is_tensor: False if it returned a tuple.
        calls: how often it ran; shape and is_tensor are those of the first call.
        before, after: number of modules with parameters of their own that finish up to it, and after it.
        layout: layout of the output if it is maps, else empty.
        grid: height and width of the maps.
        prefix_tokens: number of tokens before the grid.
        suffix_tokens: number of tokens after the grid.
        unit: side of a unit in tokens; 1 if the grid is row by row.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    is_tensor: bool
    calls: int = 1
    before: int = 0
    after: int = 0
    layout: str = ""
    grid: Grid = (0, 0)
    prefix_tokens: int = 0
    suffix_tokens: int = 0
    unit: int = 1

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[1 if self.layout == CHANNELS_FIRST else -1]

    @property
    def layout_text(self) -> str:
        """The layout in words; empty for `(C, h, w)`."""
        if self.layout == TOKENS:
            after = f" after {self.prefix_tokens}" if self.prefix_tokens else ""
            after += f" before {self.suffix_tokens}" if self.suffix_tokens else ""
            order = f" in units of {self.unit}x{self.unit}" if self.unit > 1 else ""
            return f"{self.grid[0]}x{self.grid[1]} tokens{after}{order}"
        return "channels last" if self.layout == CHANNELS_LAST else ""

    @property
    def has_features(self) -> bool:
        """Whether the module computes something, other than a pooling to a fixed grid."""
        named = _NO_FEATURES.search(type(self.module).__name__)
        return not named or any(True for _ in self.module.parameters())

    @property
    def form(self) -> tuple[str, Grid, int, int, int]:
        """Layout, grid, numbers of prefix and suffix tokens, and side of a unit."""
        return self.layout, self.grid, self.prefix_tokens, self.suffix_tokens, self.unit

    def count_positions(self, shape: Sequence[int]) -> int:
        """Number of positions of an output of this layout and of another shape."""
        if self.layout == TOKENS:
            return shape[1] - self.prefix_tokens - self.suffix_tokens
        return math.prod(shape[2:] if self.layout == CHANNELS_FIRST else shape[1:3])


def list_channel_axes(shape: Sequence[int], size: Grid) -> list[int]:
    """List the axes of an output that may be its channels'; none if it is neither maps nor tokens."""
    if len(shape) == 3:
        return [2]
    grids = {1: shape[2:], 3: shape[1:3]} if len(shape) == 4 else {}
    return [axis for axis, grid in grids.items() if is_grid(grid, size)]


def is_grid(grid: Sequence[int], size: Grid) -> bool:
    """Whether this is more than one cell, with the image's aspect ratio up to rounding."""
    (h, w), (height, width) = grid, size
    return h * w > 1 and h <= height and w <= width and abs(h * width - w * height) < max(size)


def leave_out_blocks(layers: Sequence[Layer]) -> list[Layer]:
    """Leave out the layers inside of blocks: modules of their own kind that return maps and have no stages inside.

    Trunks, which return what their last stage returns, come first; all others in the order of `layers`.
    """
    inside: dict[str, list[Grid]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for parent in _list_parents(layer.name):
            if parent in inside:
                inside[parent].append(layer.grid)
    trunks = {name for name, grids in inside.items() if len(set(grids)) > _GRIDS_OF_A_BLOCK}
    blocks = {layer.name for layer in layers if not isinstance(layer.module, nn.Sequential)} - trunks
    outside = _list_outside(layers, blocks)
    if len({layer.grid for layer in outside}) <= _GRIDS_OF_A_BLOCK:
        most = {name for name in blocks if len(set(inside[name])) > 1 and len(inside[name]) > _MOST * len(layers)}
        outside, trunks = _list_outside(layers, blocks - most), trunks | most
    return sorted(outside, key=lambda layer: layer.name not in trunks)


def _list_outside(layers: Sequence[Layer], blocks: Set[str]) -> list[Layer]:
    return [x for x in layers if blocks.isdisjoint(_list_parents(x.name)) and x.has_features]


def _list_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def build_reshape_transform(layers: Sequence[Layer], size: Grid) -> Callable[..., Tensor] | None:
    """Build the function that converts the output of each of these layers to `(B, C, h, w)`; None if all have it.

    Raises:
        ValueError: the layers' prefix tokens or the sizes of their units differ.
    """
    layouts = {layer.layout for layer in layers}
    if layouts == {CHANNELS_FIRST}:
        return None
    tokens = [layer for layer in layers if layer.layout == TOKENS]
    others = {(layer.prefix_tokens, layer.suffix_tokens) for layer in tokens}
    if len(others) > 1:
        raise ValueError("layers with prefix tokens can only be combined with layers that have as many")
    prefix, suffix = others.pop() if others else (0, 0)
    if any(layer.unit > 1 for layer in tokens):
        units = {layer.unit * size[0] // layer.grid[0] for layer in layers}
        if layouts != {TOKENS} or prefix or suffix or len(units) > 1:
            raise ValueError("layers in units of tokens can only be combined with layers in units of the same size")
        return partial(unit_reshape_transform, image_size=size, unit_size=units.pop())
    if prefix and not suffix and layouts == {TOKENS} and len({layer.grid for layer in layers}) == 1:
        patch_size = round(size[0] / layers[-1].grid[0])
        return partial(vit_reshape_transform, patch_size=patch_size, prefix_tokens=prefix)
    options: dict[str, Any] = {"prefix_tokens": prefix} if prefix else {}
    options |= {"suffix_tokens": suffix} if suffix else {}
    if CHANNELS_FIRST in layouts:
        options["channels_last"] = None if CHANNELS_LAST in layouts else False
    return partial(swin_reshape_transform, **options) if options else swin_reshape_transform
