"""Energy-based pointing game: closed forms, boxes and masks, invalid arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import EnergyPointingGame, energy_pointing_game, rasterize_region

FLAT = np.ones((1, 8, 10), dtype=np.float32)


@pytest.mark.parametrize(
    ("region", "share"),
    [
        ((0, 0, 10, 8), 1),
        ((0, 0, 5, 8), 1 / 2),
        ((2, 1, 5, 3), 6 / 80),
        ([(0, 0, 5, 4), (5, 4, 10, 8)], 1 / 2),  # apart: the sum
        ([(0, 0, 6, 4), (4, 0, 10, 4)], 1 / 2),  # overlapping: the union, not the sum
        ([(0, 0, 5, 4)] * 3, 1 / 4),
        ((-50, -50, 500, 4), 1 / 2),  # cut off at the border
        ((0.4, 0.4, 2.4, 2.4), 4 / 80),  # fractions: pixels whose centre lies inside
        ((0.6, 0.6, 2.6, 2.6), 4 / 80),
        (torch.tensor([[0, 0, 5, 8]]), 1 / 2),
        (np.eye(8, 10, dtype=bool), 8 / 80),
        (np.stack([np.eye(8, 10, dtype=bool), np.eye(8, 10, 1, dtype=bool)]), 16 / 80),
        (torch.ones(8, 10, dtype=torch.bool), 1),
    ],
)
def test_share_of_a_constant_map(region, share):
    assert energy_pointing_game(FLAT, [region]) == pytest.approx(share)
    assert rasterize_region(region, 8, 10).sum() == pytest.approx(share * 80)


def test_columns_and_rows_are_not_mixed_up():
    mask = rasterize_region((2, 1, 5, 3), 8, 10)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 2, 2, 4)


def test_energy_counts_not_area():
    maps = np.zeros((2, 8, 10))
    maps[0, 1, 1], maps[0, 6, 8] = 3, 1
    maps[1, 6, 8] = 1e-30
    regions = [(0, 0, 4, 4), (5, 4, 10, 8)]
    np.testing.assert_allclose(energy_pointing_game(maps, regions), [0.75, 1])
    np.testing.assert_allclose(energy_pointing_game(maps * 17, regions), [0.75, 1])


def test_top_points():
    maps = np.arange(80, dtype=np.float32).reshape(1, 8, 10)
    left = (0, 0, 5, 8)
    assert energy_pointing_game(maps, [left], top_k=5) == 0
    assert energy_pointing_game(maps, [left], top_k=6) == pytest.approx(74 / (75 + 76 + 77 + 78 + 79 + 74))
    np.testing.assert_allclose(energy_pointing_game(maps, [left], top_k=100), energy_pointing_game(maps, [left]))
    assert energy_pointing_game(FLAT, [(0, 0, 10, 1)], top_k=10) == 1  # equal pixels row by row


def test_a_map_of_zeros_scores_zero():
    assert energy_pointing_game(FLAT * 0, [(0, 0, 10, 8)]) == 0


def test_called_as_a_metric_of_pytorch_grad_cam():
    class NotRun(nn.Module):
        def forward(self, images):
            raise AssertionError("the model must not run")

    images, targets = torch.ones(2, 3, 8, 10), [ClassifierOutputTarget(0)] * 2
    metric = EnergyPointingGame([(0, 0, 5, 8), np.eye(8, 10, dtype=bool)], top_k=None)
    np.testing.assert_allclose(metric(images, np.repeat(FLAT, 2, axis=0), targets, NotRun()), [0.5, 0.1])
    with pytest.raises(ValueError, match="got 2 regions for 1 maps"):
        metric(images[:1], FLAT, targets[:1], NotRun())


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        ((5, 0, 5, 8), ValueError, r"got \[5, 0, 5, 8\]"),
        ((5, 0, 2, 8), ValueError, "must have x_min < x_max"),
        ((0, 0, float("nan"), 8), ValueError, "must have x_min < x_max"),
        ((10, 0, 20, 8), ValueError, "covers no pixel of the 8x10 map"),
        ((0.6, 0.6, 1.4, 1.4), ValueError, "covers no pixel"),
        (np.zeros((8, 10), dtype=bool), ValueError, "covers no pixel"),
        (np.zeros((0, 4)), ValueError, "covers no pixel"),
        (np.ones((10, 8), dtype=bool), ValueError, r"must have the map's size 8x10, got shape \(10, 8\)"),
        (np.ones(10, dtype=bool), ValueError, "must have the map's size"),
        (np.ones((8, 10)), ValueError, r"boxes must have the shape \(N, 4\).*boolean"),
        (["a"], TypeError, "boxes .numbers. or a boolean mask"),
    ],
)
def test_invalid_regions(region, error, message):
    with pytest.raises(error, match=message):
        energy_pointing_game(FLAT, [region])


def test_invalid_maps_and_counts():
    with pytest.raises(ValueError, match="must not be negative, got a minimum of -1"):
        energy_pointing_game(-FLAT, [(0, 0, 1, 1)])
    with pytest.raises(ValueError, match="NaN"):
        energy_pointing_game(FLAT * np.nan, [(0, 0, 1, 1)])
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        energy_pointing_game(FLAT, [(0, 0, 1, 1)], top_k=0)
