"""Lucidity: closed forms, and a single point, which deceives the energy pointing game."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import Lucidity, average_precision, best_iou, energy_pointing_game, lucidity

OBJECTS = Path(__file__).resolve().parents[3] / "shared" / "imagenet" / "objects"
BOX = (2, 1, 6, 6)  # 20 pixels


def test_share_of_the_object_above_a_tenth_of_the_maximum():
    maps = np.zeros((3, 8, 10))
    maps[:, 0, 0] = 50  # the maximum may lie anywhere
    maps[0, 1, 2:6] = [5.01, 5, 4.99, 50]
    maps[1, 1:6, 2:6] = 6
    np.testing.assert_allclose(lucidity(maps, [BOX] * 3), [2 / 20, 1, 0])
    np.testing.assert_allclose(lucidity(maps * 1e-9, [BOX] * 3), [2 / 20, 1, 0])
    np.testing.assert_allclose(lucidity(torch.from_numpy(maps), [BOX] * 3, share=0), [4 / 20, 1, 0])
    np.testing.assert_allclose(lucidity(maps, [BOX] * 3, share=0.5), [1 / 20, 0, 0])


def test_ends_of_the_scale():
    dot = np.zeros((1, 8, 10))
    assert lucidity(dot, [BOX]) == 0
    dot[0, 3, 3] = 1
    assert lucidity(dot, [BOX]) == 1 / 20
    assert lucidity(np.ones((1, 8, 10)), [BOX]) == 1
    assert lucidity(np.ones((1, 8, 10)), [(0, 0, 10, 8)]) == 1


def test_called_as_a_metric_of_pytorch_grad_cam():
    images, targets = torch.ones(2, 3, 8, 10), [ClassifierOutputTarget(0)] * 2
    maps = np.random.default_rng(0).random((2, 8, 10)) ** 3
    metric = Lucidity([BOX, np.eye(8, 10, dtype=bool)], share=0.2)
    np.testing.assert_array_equal(metric(images, maps, targets, nn.Identity()), lucidity(maps, metric.regions, 0.2))
    with pytest.raises(ValueError, match="got 2 regions for 1 maps"):
        metric(images[:1], maps[:1], targets[:1], nn.Identity())


def test_invalid_arguments():
    with pytest.raises(ValueError, match="must not be negative, got a minimum of -1"):
        lucidity(-np.ones((1, 8, 10)), [BOX])
    for share in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="share must be"):
            lucidity(np.ones((1, 8, 10)), [BOX], share)
    with pytest.raises(ValueError, match="covers no pixel"):
        lucidity(np.ones((1, 8, 10)), [np.zeros((8, 10), dtype=bool)])


@pytest.mark.skipif(not OBJECTS.is_dir(), reason=f"the photographs with object masks are not in {OBJECTS}")
def test_one_pixel_deceives_the_pointing_game_only():
    rows = list(csv.DictReader((OBJECTS / "labels.csv").open()))[::8]
    masks = np.stack([cv2.imread(str(OBJECTS / row["mask"]), cv2.IMREAD_GRAYSCALE) > 127 for row in rows])
    dots = np.zeros(masks.shape)
    for dot, mask in zip(dots, masks, strict=True):
        inside = np.argwhere(mask)
        dot[tuple(inside[len(inside) // 2])] = 1
    shares = masks.mean(axis=(1, 2))
    np.testing.assert_array_equal(energy_pointing_game(dots, masks), 1)
    assert lucidity(dots, masks).max() < 1e-3
    # No better than a map without anything on it.
    np.testing.assert_allclose(average_precision(dots, masks), shares, atol=2e-3)
    np.testing.assert_allclose(best_iou(dots, masks), shares)
