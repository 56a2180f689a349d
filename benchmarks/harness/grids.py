"""Localisation without boxes: 2x2 grids of images of different classes, in which the target's quarter is the box.

The form of Boehle et al., "Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR 2021: the
tiles keep the size at which the model knows them, so that a grid of 224 px images is 448 px wide and none of the
images loses the confidence that it was chosen for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.harness.data import Box, Loaded, Sample, load
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError

__all__ = ["Grid", "compose", "load_grid"]


class Grid(NamedTuple):
    """Four samples of different classes, row by row; the one at `quarter` is the target."""

    tiles: tuple[Sample, ...]
    quarter: int


def compose(samples: Sequence[Sample], seed: int) -> list[Grid]:
    """One grid a sample, in which it is the target; the others and the places are random.

    Raises:
        UsageError: fewer than four classes.
    """
    if len({sample.label for sample in samples}) < 4:
        raise UsageError("a grid needs images of four different classes")
    grids = []
    for number, target in enumerate(samples):
        rng = np.random.default_rng((seed, number))
        tiles = [target]
        while len(tiles) < 4:
            other = samples[int(rng.integers(len(samples)))]
            if all(other.label != tile.label for tile in tiles):
                tiles.append(other)
        quarter = int(rng.integers(4))
        tiles[0], tiles[quarter] = tiles[quarter], tiles[0]
        grids.append(Grid(tuple(tiles), quarter))
    return grids


def load_grid(grid: Grid, classifier: Classifier) -> Loaded:
    """The grid as one input of twice the sides, and the target's quarter as its box."""
    first, second, third, fourth = (load(tile, classifier).image for tile in grid.tiles)
    image = torch.cat([torch.cat([first, second], dim=3), torch.cat([third, fourth], dim=3)], dim=2)
    height, width = first.shape[-2:]
    row, column = divmod(grid.quarter, 2)
    box: Box = (column * width, row * height, (column + 1) * width, (row + 1) * height)
    return Loaded(image, (box,))
