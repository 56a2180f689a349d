"""The picture of every stage: it draws what `intermediates` returns, and the committed one is small."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import stages
from holistic_cam_plugin import explainable
from holistic_cam_plugin.demo import load_demo_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn():
    found = explainable(load_demo_model()).at(["layer4"])
    figure = stages.draw_stages(found, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 3)
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes]
    return pictures, [axes.get_title() for axes in figure.axes]


def test_it_has_a_column_for_every_scale_and_a_row_for_every_mask(drawn):
    pictures, titles = drawn
    assert len(pictures) == 7 * 3 + 2 * 5
    assert [title for title in titles if title.endswith(" px")] == [
        f"{side} px" for side in (32, 174, 317, 460, 603, 746, 889)
    ]


def test_the_grids_get_finer_with_the_images(drawn):
    pictures, _ = drawn
    images, activations, weights = ([pictures[3 * column + row].shape for column in range(7)] for row in range(3))
    assert [shape[:2] for shape in images] == [(side, side) for side in (32, 174, 317, 460, 603, 746, 889)]
    assert activations == weights
    assert all(small < large for (small, _), (large, _) in pairwise(activations))


def test_the_result_is_the_fused_map_times_the_mask(drawn):
    pictures, _ = drawn
    for fused, _, mask, saliency_map, _ in ([pictures[21 + 5 * row + column] for column in range(5)] for row in (0, 1)):
        masked = np.float64(fused) * mask
        masked -= masked.min()
        np.testing.assert_allclose(saliency_map, masked / masked.max(), atol=1e-5)


def test_the_committed_picture_is_small_and_its_command_is_told():
    path = ROOT / "docs" / "stages.jpg"
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.width >= 1200
    assert "python -m benchmarks.stages --output docs/stages.jpg" in (ROOT / "docs" / "method.md").read_text("utf-8")
