"""Find the layout of a layer's maps: the one with which they change where the picture does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from holistic_cam_plugin.models.geometry import Placement, place_change
from holistic_cam_plugin.models.layers import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    TOKENS,
    Grid,
    Layer,
    is_grid,
    list_channel_axes,
)
from holistic_cam_plugin.reshape_transforms import MAX_PREFIX_TOKENS, join_units

__all__ = ["read_layouts"]

# By how much the mean correlation must be higher if some of the other tokens follow the grid.
_CLEARLY = 0.05
# By how much the correlation of a less likely layout must be higher.
_BETTER = 0.2


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
