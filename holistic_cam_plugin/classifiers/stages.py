"""The stages of a model: which modules return maps, and the one of each stage that explains a score.

Maps are `(B, C, h, w)`, `(B, h, w, C)`, or tokens `(B, N, C)` whose N, but for a few before them, are a grid
row by row.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from holistic_cam_plugin.classifiers.probe import Returned, gradients
from holistic_cam_plugin.reshape_transforms import MOST_PREFIX_TOKENS, swin_reshape_transform, vit_reshape_transform

__all__ = ["Maps", "explaining_stages", "read_maps", "reshape_transform"]

# The deepest stages.
STAGES = 4
# A stem whose maps are finer than a quarter of the image says little. It stays where there are few other stages.
_FINEST, _ENOUGH = 4, 3
# Below this part of |A| |G|, the sum of A G over the channels is rounding: a larger activation is no other one to the
# normalisation that follows.
_EVIDENCE = 1e-3
# A block sees what it gets and what it gives; what sees more grids is a trunk of several stages.
_GRIDS_OF_A_BLOCK = 2
# Adaptive pooling gives the same grid at every scale; the others hand on what they get.
_NO_FEATURES = re.compile("Adaptive|Drop|Identity")

FIRST, LAST, TOKENS = "(B, C, h, w)", "(B, h, w, C)", "(B, N, C)"


class Maps(NamedTuple):
    """A module that returns maps.

    Attributes:
        returned: the module and what it returned.
        layout: how its channels lie.
        grid: height and width of the maps.
        prefix: tokens before the grid.
    """

    returned: Returned
    layout: str
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def name(self) -> str:
        """Of the module in the model."""
        return self.returned.name

    @property
    def order(self) -> str:
        """Where channels and grid lie, in words; empty for `(C, h, w)`."""
        if self.layout == TOKENS:
            return f"{self.grid[0]}x{self.grid[1]} tokens" + (f" after {self.prefix}" if self.prefix else "")
        return "channels last" if self.layout == LAST else ""

    def renamed(self, name: str) -> Maps:
        """The same under another name."""
        return self._replace(returned=self.returned._replace(name=name))

    @property
    def channels(self) -> int:
        """C."""
        return self.returned.shape[1 if self.layout == FIRST else -1]


def read_maps(found: Iterable[Returned], batch: int, size: tuple[int, int]) -> list[Maps]:
    """What can be read as maps of a batch of images of this size, in the given order."""
    found = [one for one in found if one.shape and one.shape[0] == batch]
    grids = {one.shape[2:] for one in found if len(one.shape) == 4 and _is_grid(one.shape[2:], size)}
    maps = []
    for one in found:
        if len(one.shape) == 4:
            readings = [(FIRST, one.shape[2:]), (LAST, one.shape[1:3])]
            maps += [Maps(one, layout, grid) for layout, grid in readings if _is_grid(grid, size)][:1]
        elif len(one.shape) == 3 and (grid := _token_grid(one.shape[1], size, grids)):
            maps.append(Maps(one, TOKENS, grid, one.shape[1] - math.prod(grid)))
    return _one_order(maps)


def explaining_stages(
    model: nn.Module, maps: Sequence[Maps], classes: int, image: Tensor, score: Callable[[Any], Tensor]
) -> list[Maps]:
    """One layer for each of the last stages, shallow to deep; of a model with one grid, one at each quarter.

    A stage is all the layers with maps of one size. Its result is the last one that finishes, outside of any block. If
    what it returns does not explain the score (tokens of which the class token alone is read on; the sum of A G is zero
    before a normalisation of each place), the last normalisation of the same shape stands in for it.

    Args:
        model: called on `image`.
        maps: of its modules, in the order in which they finish.
        classes: of the model: the last maps of so many channels are scores.
        image: `(1, C, H, W)`.
        score: maps the output to a scalar that depends on everything of interest.
    """
    outer = _without_scores(_of_usual_width(_outside_blocks(maps)), classes)
    stages = {one.grid: one for one in outer}
    grids = _shallow_to_deep(stages)
    usual = [grid for grid in grids if _FINEST * grid[0] <= image.shape[2]]
    chosen_grids = (usual if len(usual) >= _ENOUGH else grids)[-STAGES:]
    choices = {grid: _choices(stages[grid], maps, outer) for grid in chosen_grids}
    layers = list({one.name: one for some in choices.values() for one in some}.values())
    found = gradients(model, [one.returned.module for one in layers], image, score)
    explains = {one.name for one, pair in zip(layers, found, strict=True) if pair and _evidence(one, *pair) > _EVIDENCE}
    chosen = [next((one for one in some if one.name in explains), None) for some in choices.values()]
    found_stages = [one for one in chosen if one is not None]
    if not found_stages:
        return []
    kept = _representable(found_stages)
    if len(stages) == 1:
        return _quarters(kept[0], [one for one in maps if one.name in explains])
    return kept


def reshape_transform(stages: Sequence[Maps], size: tuple[int, int]) -> Callable[..., Tensor] | None:
    """One that makes `(B, C, h, w)` of what each of these layers returns; None: they do so already.

    Raises:
        ValueError: some have tokens before the grid, and they are not all alike.
    """
    layouts = {one.layout for one in stages}
    if layouts == {FIRST}:
        return None
    if any(one.prefix for one in stages) and len({one[1:] for one in stages}) > 1:
        raise ValueError("layers with tokens before their grid go with none but their like: name those of one kind")
    if prefix := stages[-1].prefix:
        patch_size = round(size[0] / stages[-1].grid[0])
        return partial(vit_reshape_transform, patch_size=patch_size, prefix_tokens=prefix)
    return partial(swin_reshape_transform, channels_last=False) if FIRST in layouts else swin_reshape_transform


def _is_grid(grid: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether this is more than one cell, with the image's aspect up to rounding."""
    (h, w), (height, width) = grid, size
    return h * w > 1 and h <= height and w <= width and abs(h * width - w * height) < max(size)


def _token_grid(count: int, size: tuple[int, int], grids: Iterable[Sequence[int]]) -> tuple[int, int] | None:
    """The grid that leaves the fewest tokens over: one that a convolution returned, or one of the image's aspect."""
    rows = round(math.sqrt(count * size[0] / size[1]))
    known = [(h, w) for h, w in grids if 0 <= count - h * w <= MOST_PREFIX_TOKENS]
    if rows and count % rows == 0 and size[0] % rows == 0 and _is_grid((rows, count // rows), size):
        known.append((rows, count // rows))
    return max(known, key=math.prod, default=None)


def _one_order(maps: Sequence[Maps]) -> list[Maps]:
    """The maps with their channels where most of those outside of blocks have them, and the tokens."""

    def fits_both(one: Maps) -> bool:
        return one.layout != TOKENS and len(set(one.returned.shape[1:])) == 1

    votes = Counter(one.layout for one in _outside_blocks(maps) if one.layout != TOKENS and not fits_both(one))
    order = LAST if votes[LAST] > votes[FIRST] else FIRST
    read = [one._replace(layout=order) if fits_both(one) else one for one in maps]
    return [one for one in read if one.layout in (order, TOKENS)]


def _outside_blocks(maps: Sequence[Maps]) -> list[Maps]:
    """Those that no block contains: a module of its own kind that returns maps itself, and has no stages inside.

    Trunks, which return what the last of their stages returns, come first; all others in the order of `maps`.
    """
    inside: dict[str, set[tuple[int, int]]] = {one.name: set() for one in maps}
    for one in maps:
        for parent in _parents(one.name):
            if parent in inside:
                inside[parent].add(one.grid)
    trunks = {name for name, grids in inside.items() if len(grids) > _GRIDS_OF_A_BLOCK}
    blocks = {one.name for one in maps if not isinstance(one.returned.module, nn.Sequential)} - trunks
    outside = [
        one
        for one in maps
        if blocks.isdisjoint(_parents(one.name)) and not _NO_FEATURES.search(type(one.returned.module).__name__)
    ]
    return sorted(outside, key=lambda one: one.name not in trunks)


def _of_usual_width(outer: Sequence[Maps]) -> list[Maps]:
    """Without the tokens of another width than most of their grid: keys and values of a pooling by attention."""
    widths: dict[tuple[int, int], Counter[int]] = {}
    for one in outer:
        if one.layout == TOKENS:
            widths.setdefault(one.grid, Counter())[one.channels] += 1
    usual = {grid: counted.most_common(1)[0][0] for grid, counted in widths.items()}
    return [one for one in outer if one.layout != TOKENS or one.channels == usual[one.grid]]


def _without_scores(outer: Sequence[Maps], classes: int) -> Sequence[Maps]:
    """Without the deepest maps of as many channels as there are classes, unless all of the deepest have so many."""
    deepest = min((one.grid for one in outer), key=math.prod, default=None)
    scores = [one for one in outer if one.grid == deepest and one.layout == FIRST and one.channels == classes]
    others = [one for one in outer if one not in scores]
    return others if any(one.grid == deepest for one in others) else outer


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _shallow_to_deep(grids: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(grids, key=math.prod, reverse=True)


def _choices(result: Maps, maps: Sequence[Maps], outer: Sequence[Maps]) -> list[Maps]:
    """What may stand for a stage with this result, the first choice first."""
    latest = maps[::-1]
    alike = [one for one in latest if one[1:] == result[1:] and one.channels == result.channels]
    norms = [one for one in alike if "norm" in type(one.returned.module).__name__.lower()]
    others = [one for one in outer[::-1] if one.grid == result.grid]
    return [one for one in (result, *norms, *others) if one.returned.plain]


def _evidence(maps: Maps, activations: Tensor, gradient: Tensor) -> float:
    r"""$\sum_{ij} |\sum_c A G|$ over the grid, as a part of $\sum_{ijc} |A G|$; 0 where the gradient is zero."""
    product = activations.double() * gradient.double()
    if maps.layout == FIRST:
        product = product.movedim(1, -1)
    product = product.flatten(1, -2)[:, maps.prefix :]
    total = float(product.abs().sum())
    return float(product.sum(dim=-1).abs().sum()) / total if total > 0 else 0.0


def _representable(stages: Sequence[Maps]) -> list[Maps]:
    """Those that one reshape transform serves: with the deepest stage's tokens before the grid, or with none."""
    last = stages[-1]
    return [one for one in stages if (one[1:] == last[1:] if last.prefix else not one.prefix)]


def _quarters(last: Maps, explaining: Sequence[Maps]) -> list[Maps]:
    """The layers at each quarter of a row of alike ones, that ends with this one or before it."""
    rows: dict[str, list[Maps]] = {}
    for one in explaining:
        if one[1:] == last[1:]:
            rows.setdefault(_pattern(one), []).append(one)
    row = rows[_pattern(last)]
    if len(row) == 1:
        row = max(rows.values(), key=len)
    picked = [row[math.ceil(len(row) * quarter / STAGES) - 1] for quarter in range(1, STAGES)]
    return [*dict.fromkeys(one for one in picked if one != last), last]


def _pattern(one: Maps) -> str:
    """The name that layers of successive blocks have in common: all but the blocks' numbers."""
    parent, _, own = one.name.rpartition(".")
    return re.sub(r"\d+", "#", parent) + "." + ("#" if own.isdecimal() else own)
