"""The layers of a model that return maps, and the layouts of these maps.

Maps are `(B, C, h, w)`, `(B, h, w, C)`, or tokens `(B, N, C)`: a few prefix tokens, then the grid row by row, or unit
by unit as in Hiera. A layout is believed if its maps change where the picture does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from holistic_cam_plugin.models.geometry import Placement, place_change
from holistic_cam_plugin.reshape_transforms import (
    MAX_PREFIX_TOKENS,
    join_units,
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
    "read_layouts",
]

# A block has the grids of its input and its output; a module with more is a trunk of several stages.
_GRIDS_OF_A_BLOCK = 2
# Adaptive pooling returns the same grid at every scale; the others return their input.
_NO_FEATURES = re.compile("Adaptive|Drop|Identity|Permute")
# By how much the mean correlation must be higher if some of the other tokens follow the grid.
_CLEARLY = 0.05
# By how much the correlation of a less likely layout must be higher.
_BETTER = 0.2

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


def read_layouts(
    layers: Iterable[Layer], changes: Mapping[str, Mapping[int, Tensor]], size: Grid
) -> tuple[list[Layer], dict[str, str]]:
    """Find the layers whose maps follow the picture, with their layouts.

    Where positions are mixed so much that a change shows everywhere, a layer is believed if others with the same layout
    and the same or a twice as fine grid follow the picture.

    Args:
        layers: what the modules returned for a batch of `patch_image`.
        changes: by name, what `measure_change` gives for each axis that may be the channels'.
        size: height and width of the images.

    Returns:
        These layers, and for the other layers that look like maps, by name, why they are none.
    """
    layers = [layer for layer in layers if layer.name in changes]
    grids = _find_grids(layers, size)
    suffixes = _find_suffixes(layers, changes, size, grids)
    read = [(layer, [*_list_readings(layer, changes[layer.name], size, grids, suffixes)]) for layer in layers]
    followers = [reading for _, readings in read for reading, placement in readings if placement.follows]
    forms: set[tuple[Any, ...]] = {reading.form for reading in followers}
    forms |= {(layout, _halve(grid), *rest) for layout, grid, *rest in forms}
    found, rejected = [], {}
    for layer, readings in read:
        following = _list_best_first(readings)
        unclear = [reading for reading, placement in readings if placement.is_unclear and reading.form in forms]
        if following or unclear:
            found.append((following or unclear)[0])
        elif readings:
            rejected[layer.name] = readings[0][1].reason
    return found, rejected


def _list_best_first(readings: Sequence[tuple[Layer, Placement]]) -> list[Layer]:
    """The readings that follow the picture; a later one comes before an earlier one only if it is clearly better."""
    following = [
        (_BETTER * place - placement.correlation, reading)
        for place, (reading, placement) in enumerate(readings)
        if placement.follows
    ]
    return [reading for _, reading in sorted(following, key=lambda pair: pair[0])]


def _halve(grid: Grid) -> Grid:
    return -(-grid[0] // 2), -(-grid[1] // 2)


def _find_grids(layers: Iterable[Layer], size: Grid) -> set[Grid]:
    """The grids of maps, and of tokens without a prefix."""
    maps = [layer.shape for layer in layers if len(layer.shape) == 4]
    grids = {(grid[0], grid[1]) for shape in maps for grid in (shape[2:], shape[1:3]) if is_grid(grid, size)}
    counts = [layer.shape[1] for layer in layers if len(layer.shape) == 3]
    return grids | {grid for count in counts if (grid := _guess_grid(count, size))}


def _list_readings(
    layer: Layer,
    changes: Mapping[int, Tensor],
    size: Grid,
    grids: Iterable[Grid],
    suffixes: Mapping[tuple[int, Grid], int],
) -> Iterator[tuple[Layer, Placement]]:
    """The layouts that a layer's shape allows, likely ones first, and where its maps change with each."""
    shape = layer.shape
    if len(shape) == 4:
        for axis in list_channel_axes(shape, size):
            layout, grid = (CHANNELS_FIRST, shape[2:]) if axis == 1 else (CHANNELS_LAST, shape[1:3])
            yield layer._replace(layout=layout, grid=(grid[0], grid[1])), place_change(changes[axis])
        return
    if len(shape) != 3:
        return
    for extra, grid in _list_token_grids(shape[1], size, grids):
        suffix = suffixes.get((shape[1], grid), 0)
        for unit in _list_units(grid):
            placement = _place_tokens(changes[2], extra - suffix, grid, unit)
            if unit == 1 or placement.follows:
                found = layer._replace(layout=TOKENS, grid=grid, prefix_tokens=extra - suffix, suffix_tokens=suffix)
                yield found._replace(unit=unit), placement


def _place_tokens(change: Tensor, prefix: int, grid: Grid, unit: int = 1) -> Placement:
    tokens = change[:, prefix : prefix + math.prod(grid), None]
    return place_change(join_units(tokens, grid, unit)[:, 0])


def _find_suffixes(
    layers: Iterable[Layer], changes: Mapping[str, Mapping[int, Tensor]], size: Grid, grids: Iterable[Grid]
) -> dict[tuple[int, Grid], int]:
    """Find how many tokens follow the grid, for each number of tokens: those with which all such layers follow best."""
    correlations: dict[tuple[int, Grid], list[list[float]]] = {}
    for layer in layers:
        if len(layer.shape) != 3:
            continue
        change = changes[layer.name][2]
        for extra, grid in _list_token_grids(layer.shape[1], size, grids):
            splits = [_place_tokens(change, extra - suffix, grid) for suffix in range(extra + 1)]
            if any(placement.follows for placement in splits):
                of_form = correlations.setdefault((layer.shape[1], grid), [])
                of_form.append([placement.correlation for placement in splits])
    found = {}
    for form, rows in correlations.items():
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        if max(means) > means[0] + _CLEARLY:
            found[form] = means.index(max(means))
    return found


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


def _list_token_grids(count: int, size: Grid, grids: Iterable[Grid]) -> list[tuple[int, Grid]]:
    """The grids of which tokens may consist, with the number of other tokens: none first."""
    found = []
    for extra in range(min(MAX_PREFIX_TOKENS, count - 1) + 1):
        guessed = _guess_grid(count - extra, size)
        known = [grid for grid in grids if math.prod(grid) == count - extra]
        found += [(extra, grid) for grid in dict.fromkeys([*known, *([guessed] if guessed else [])])]
    return found


def _guess_grid(count: int, size: Grid) -> Grid | None:
    """The grid of square cells that this number of tokens makes up, if there is one."""
    rows = round(math.sqrt(count * size[0] / size[1]))
    fits = rows and count % rows == 0 and size[0] % rows == 0 and is_grid((rows, count // rows), size)
    return (rows, count // rows) if fits else None


def _list_units(grid: Grid) -> Iterator[int]:
    """The sides in tokens of the units that divide the grid: powers of two."""
    unit = 1
    while grid[0] % unit == grid[1] % unit == 0:
        yield unit
        unit *= 2


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
    outside = [x for x in layers if blocks.isdisjoint(_list_parents(x.name)) and x.has_features]
    return sorted(outside, key=lambda layer: layer.name not in trunks)


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
