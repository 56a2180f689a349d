"""The layers of a model that return maps, and the layouts of these maps.

Maps are `(B, C, h, w)`, `(B, h, w, C)`, or tokens `(B, N, C)`: a few prefix tokens, then the grid row by row.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from holistic_cam_plugin.reshape_transforms import MAX_PREFIX_TOKENS, swin_reshape_transform, vit_reshape_transform

__all__ = [
    "CHANNELS_FIRST",
    "TOKENS",
    "Grid",
    "Layer",
    "build_reshape_transform",
    "is_grid",
    "leave_out_blocks",
    "read_layouts",
]

# A block has the grids of its input and its output; a module with more is a trunk of several stages.
_GRIDS_OF_A_BLOCK = 2
# Adaptive pooling returns the same grid at every scale; the others return their input.
_NO_FEATURES = re.compile("Adaptive|Drop|Identity")

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
        layout: layout of the output if it is maps, else empty.
        grid: height and width of the maps.
        prefix_tokens: number of tokens before the grid.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    is_tensor: bool
    calls: int = 1
    layout: str = ""
    grid: Grid = (0, 0)
    prefix_tokens: int = 0

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[1 if self.layout == CHANNELS_FIRST else -1]

    @property
    def layout_text(self) -> str:
        """The layout in words; empty for `(C, h, w)`."""
        if self.layout == TOKENS:
            after = f" after {self.prefix_tokens}" if self.prefix_tokens else ""
            return f"{self.grid[0]}x{self.grid[1]} tokens{after}"
        return "channels last" if self.layout == CHANNELS_LAST else ""

    @property
    def form(self) -> tuple[str, Grid, int]:
        """Layout, grid and number of prefix tokens."""
        return self.layout, self.grid, self.prefix_tokens


def read_layouts(layers: Iterable[Layer], batch: int, size: Grid) -> list[Layer]:
    """Keep the layers that return maps of a batch of images of this size, with their layouts."""
    layers = [layer for layer in layers if layer.shape and layer.shape[0] == batch]
    grids = {layer.shape[2:] for layer in layers if len(layer.shape) == 4 and is_grid(layer.shape[2:], size)}
    found = []
    for layer in layers:
        if len(layer.shape) == 4:
            layouts = [(CHANNELS_FIRST, layer.shape[2:]), (CHANNELS_LAST, layer.shape[1:3])]
            found += [layer._replace(layout=layout, grid=grid) for layout, grid in layouts if is_grid(grid, size)][:1]
        elif len(layer.shape) == 3 and (grid := _find_token_grid(layer.shape[1], size, grids)):
            prefix = layer.shape[1] - math.prod(grid)
            found.append(layer._replace(layout=TOKENS, grid=grid, prefix_tokens=prefix))
    return _unify_channel_order(found)


def is_grid(grid: Sequence[int], size: Grid) -> bool:
    """Whether this is more than one cell, with the image's aspect ratio up to rounding."""
    (h, w), (height, width) = grid, size
    return h * w > 1 and h <= height and w <= width and abs(h * width - w * height) < max(size)


def _find_token_grid(count: int, size: Grid, grids: Iterable[Sequence[int]]) -> Grid | None:
    """Find the grid with the fewest prefix tokens: a convolution returned it, or it has the image's aspect ratio."""
    rows = round(math.sqrt(count * size[0] / size[1]))
    known = [(h, w) for h, w in grids if 0 <= count - h * w <= MAX_PREFIX_TOKENS]
    if rows and count % rows == 0 and size[0] % rows == 0 and is_grid((rows, count // rows), size):
        known.append((rows, count // rows))
    return max(known, key=math.prod, default=None)


def _unify_channel_order(layers: Sequence[Layer]) -> list[Layer]:
    """Keep the tokens, and the maps with their channels where most maps outside of blocks have them."""

    def fits_both(layer: Layer) -> bool:
        return layer.layout != TOKENS and len(set(layer.shape[1:])) == 1

    votes = Counter(
        layer.layout for layer in leave_out_blocks(layers) if layer.layout != TOKENS and not fits_both(layer)
    )
    order = CHANNELS_LAST if votes[CHANNELS_LAST] > votes[CHANNELS_FIRST] else CHANNELS_FIRST
    unified = [layer._replace(layout=order) if fits_both(layer) else layer for layer in layers]
    return [layer for layer in unified if layer.layout in (order, TOKENS)]


def leave_out_blocks(layers: Sequence[Layer]) -> list[Layer]:
    """Leave out the layers inside of blocks: modules of their own kind that return maps and have no stages inside.

    Trunks, which return what their last stage returns, come first; all others in the order of `layers`.
    """
    inside: dict[str, set[Grid]] = {layer.name: set() for layer in layers}
    for layer in layers:
        for parent in _list_parents(layer.name):
            if parent in inside:
                inside[parent].add(layer.grid)
    trunks = {name for name, grids in inside.items() if len(grids) > _GRIDS_OF_A_BLOCK}
    blocks = {layer.name for layer in layers if not isinstance(layer.module, nn.Sequential)} - trunks
    outside = [
        layer
        for layer in layers
        if blocks.isdisjoint(_list_parents(layer.name)) and not _NO_FEATURES.search(type(layer.module).__name__)
    ]
    return sorted(outside, key=lambda layer: layer.name not in trunks)


def _list_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def build_reshape_transform(layers: Sequence[Layer], size: Grid) -> Callable[..., Tensor] | None:
    """Build the function that converts the output of each of these layers to `(B, C, h, w)`; None if all have it.

    Raises:
        ValueError: the layers' prefix tokens differ.
    """
    layouts = {layer.layout for layer in layers}
    if layouts == {CHANNELS_FIRST}:
        return None
    if any(layer.prefix_tokens for layer in layers) and len({layer.form for layer in layers}) > 1:
        raise ValueError("layers with prefix tokens can only be combined with layers of the same shape")
    if prefix := layers[-1].prefix_tokens:
        patch_size = round(size[0] / layers[-1].grid[0])
        return partial(vit_reshape_transform, patch_size=patch_size, prefix_tokens=prefix)
    return partial(swin_reshape_transform, channels_last=False) if CHANNELS_FIRST in layouts else swin_reshape_transform
