"""Whether a layer's maps lie over the picture: change a patch of the picture, and see where the maps change.

A square number of tokens need not be a grid row by row, and four dimensions need not be maps: they may be attention
between positions, latents, or units of positions in an order of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PLACES", "Placement", "measure_change", "patch_image", "place_change", "place_maps"]

# Centres of the patches, as parts of height and width, and their side. The first two differ in both, so that rows taken
# for columns show.
PLACES = ((0.28, 0.7), (0.72, 0.34), (0.36, 0.24))
PATCH = 0.25
# Standard deviation of a bump, which is half a cell wider: that of a patch, and of what the layers around it spread.
_BUMP = 0.15
# Of 51 modules of timm, with random weights, real stages have at least 0.5; latents, attention matrices and tokens in
# another order at most 0.2.
# What lies in between is not offered, but used without a word if the user names it.
LEAST_CORRELATION, MOST_BY_CHANCE = 0.3, 0.15
# With two positions along a side, each as often at its edge as at its centre, places cannot be told apart.
FEWEST = 3
# Below this, the change is the same wherever the patch is: of these modules 0.03 where positions are mixed, 0.1 where
# they are not.
LEAST_CONTRAST = 0.05


class Placement(NamedTuple):
    """Where maps change if patches of the picture change.

    Attributes:
        distance: mean distance between a patch and what changes because of it, in sides of the picture.
        contrast: how much the change depends on the patch's place: 0 not at all, near 1 if no position changes for two
            places.
        correlation: of the change with bumps at the patches' places, in [-1, 1]: the least of those over all positions,
            over rows and over columns.
    """

    distance: float
    contrast: float
    correlation: float

    @property
    def follows(self) -> bool:
        """Whether the maps change where the picture does."""
        return not self.is_unclear and self.correlation >= LEAST_CORRELATION

    @property
    def is_unclear(self) -> bool:
        """Whether nobody can tell: the maps change everywhere alike, or not at all, or there are too few positions."""
        return not self.contrast >= LEAST_CONTRAST

    @property
    def is_elsewhere(self) -> bool:
        """Whether the maps change elsewhere than the picture, beyond doubt."""
        return not self.is_unclear and self.correlation < MOST_BY_CHANCE

    @property
    def reason(self) -> str:
        """What is wrong with the maps; empty if they follow the picture."""
        if self.follows:
            return ""
        if self.is_unclear:
            return "changes everywhere alike, wherever the picture changes"
        return f"changes {self.distance:.2f} of the side away from where the picture changes"


def patch_image(image: Tensor, places: Sequence[tuple[float, float]] = PLACES) -> Tensor:
    """Copy an image, and replace a patch of noise at each place.

    Args:
        image: `(1, C, H, W)`, or a volume `(1, C, D, H, W)`, whose patches go through all slices.
        places: centres of the patches, as parts of height and width.

    Returns:
        `(1 + places, C, H, W)`: the image itself, then one copy per place.
    """
    height, width = image.shape[-2:]
    copies = image.repeat(1 + len(places), *[1] * (image.ndim - 1))
    generator = torch.Generator().manual_seed(0)
    spread = float(image.float().std(correction=0)) or 1.0
    for copy, place in zip(copies[1:], places, strict=True):
        rows, columns = (_span(at, side) for at, side in zip(place, (height, width), strict=True))
        patch = copy[..., rows, columns]
        noise = torch.randn(patch.shape, generator=generator) * 1.5 * spread + float(image.float().mean())
        copy[..., rows, columns] = noise.to(patch)
    return copies


def _span(centre: float, side: int) -> slice:
    length = max(1, round(PATCH * side))
    first = min(max(0, round(centre * side - length / 2)), side - length)
    return slice(first, first + length)


def measure_change(features: Tensor, axis: int) -> Tensor:
    """Measure at which positions the features of every other image differ from those of the first.

    What changes at all positions alike is left out: a gate, or attention to everything, adds it to all of them.

    Args:
        features: `(1 + places, ...)`, any floating dtype.
        axis: of the channels, over which absolute differences are summed.

    Returns:
        `(places, ...)` without this axis, float32.
    """
    first = features[0].float()
    positions = [other for other in range(first.ndim) if other != axis - 1]
    differences = (one.float() - first for one in features[1:])
    return torch.stack([(d - d.mean(dim=positions, keepdim=True)).abs().sum(dim=axis - 1) for d in differences])


def place_maps(maps: Tensor, places: Sequence[tuple[float, float]] = PLACES) -> Placement:
    """`place_change` of maps `(1 + places, C, h, w)`, or of volumes `(1 + places, C, d, h, w)` over all slices."""
    change = measure_change(maps, 1)
    return place_change(change.sum(dim=1) if change.ndim == 4 else change, places)


def place_change(change: Tensor, places: Sequence[tuple[float, float]] = PLACES) -> Placement:
    """Compare where maps change with where the patches are.

    What changes for all places alike is subtracted. For the distance, positions above half of the maximum count.

    Args:
        change: `(places, h, w)`, not negative, for at least two places.
        places: centres of the patches, as parts of height and width.
    """
    change = change.double().cpu()
    totals = change.flatten(1).sum(dim=1)
    if min(change.shape[1:]) < FEWEST or not bool((totals.isfinite() & (totals > 0)).all()):
        return Placement(math.nan, 0.0, 0.0)
    shares = change / totals[:, None, None]
    own = shares - shares.mean(dim=0)
    away = torch.stack([_measure_distances(place, change.shape[1], change.shape[2]) for place in places])
    near = own.clamp(min=0) * (own >= own.amax(dim=(1, 2), keepdim=True) / 2)
    distance = (near * away).sum(dim=(1, 2)) / near.sum(dim=(1, 2)).clamp(min=1e-300)
    width = math.hypot(_BUMP, 0.5 / min(change.shape[1:]))
    bumps = (-((away / width) ** 2) / 2).exp()
    bumps = bumps / bumps.sum(dim=(1, 2), keepdim=True)
    bumps = bumps - bumps.mean(dim=0)
    both = ((own, bumps), *((own.sum(dim=axis), bumps.sum(dim=axis)) for axis in (1, 2) if change.shape[3 - axis] > 1))
    correlation = min(_correlate(*pair) for pair in both)
    return Placement(float(distance.mean()), float(own.abs().sum()) / 2 / len(own), correlation)


def _correlate(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-300))


def _measure_distances(place: tuple[float, float], height: int, width: int) -> Tensor:
    """Distances of the cells' centres of a grid from a place, in sides of the picture."""
    (y, x), (rows, columns) = place, ((torch.arange(count).double() + 0.5) / count for count in (height, width))
    return ((rows[:, None] - y) ** 2 + (columns - x) ** 2).sqrt()
