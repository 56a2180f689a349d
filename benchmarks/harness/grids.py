"""Localisation without boxes: 2x2 grids of images of different classes, where the target's quarter is the box.

As in Boehle et al., "Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR 2021, tiles keep
their size: a grid of 224 px images is 448 px wide, and images keep the confidence that they were chosen for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.harness.data import Box, Loaded, Sample, load
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import Classifier

__all__ = ["Grid", "compose_grids", "load_grid"]


class Grid(NamedTuple):
    """Four samples of different classes, row by row; the target is at index `quarter`."""

    tiles: tuple[Sample, ...]
    quarter: int


def compose_grids(samples: Sequence[Sample], seed: int) -> list[Grid]:
    """Compose one grid per sample, in which it is the target; the other tiles and the places are random.

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
    """Load the grid as one input with twice the sides, and the target's quarter as its box."""
    first, second, third, fourth = (load(tile, classifier).image for tile in grid.tiles)
    image = torch.cat([torch.cat([first, second], dim=3), torch.cat([third, fourth], dim=3)], dim=2)
    height, width = first.shape[-2:]
    row, column = divmod(grid.quarter, 2)
    box: Box = (column * width, row * height, (column + 1) * width, (row + 1) * height)
    return Loaded(image, (box,))
