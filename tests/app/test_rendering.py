"""The table and the pictures of the page."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from holistic_cam_plugin.app.choices import Choice, Column
from holistic_cam_plugin.app.explaining import Explained
from holistic_cam_plugin.app.rendering import Colours, grid, map_names, one_map, place, rows
from holistic_cam_plugin.display import overlaid

COLUMNS = [Column("gradcam", {}), Column("holisticcam", {"weighting": "positive", "fsd": False})]
CLASSES = ["ant", "<script>alert(1)</script>", "hen"]


@pytest.fixture
def explained():
    """Two layers and two classes: a map is a constant but for its peak, so that one tells it from the others."""
    rng = np.random.default_rng(0)
    maps = [[np.full((2, 30, 40), 0.1, np.float32) for _ in range(2)] for _ in COLUMNS]
    for number, saliency_map in enumerate(m for of_column in maps for of_layer in of_column for m in of_layer):
        saliency_map[: number + 1] = 1
    return Explained(rng.random((30, 40, 3), np.float32), Choice([2, 1], ["layer1", "layer4"], COLUMNS), maps)


def images(html):
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_layers_down_methods_across_the_picture_first(explained):
    html = grid(explained, CLASSES, Colours())
    heads = re.findall(r'<th scope="(\w+)">(?:<span>)?([^<]*)', html)
    assert [name for scope, name in heads if scope == "col"] == [
        "picture", "Grad-CAM", "Holistic-CAM positive\nno mask",
    ]  # fmt: skip
    assert [name.split("\n")[0] for scope, name in heads if scope == "row"] == ["layer1", "layer4"] * 2
    pictures = images(html)
    assert len(pictures) == 4 * 3
    for row, (_, maps) in enumerate(rows(explained, CLASSES)):
        untouched, *overlays = pictures[3 * row : 3 * row + 3]
        assert np.abs(untouched - 255 * explained.picture).mean() < 12  # JPEG of noise
        for shown, saliency_map in zip(overlays, maps, strict=True):
            wanted = overlaid(explained.picture, saliency_map)
            assert np.abs(shown.astype(float) - wanted).mean() < 12


def test_names_of_classes_are_text(explained):
    html = grid(explained, CLASSES, Colours())
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_what_is_not_computed_yet_has_its_place(explained):
    html = grid(explained._replace(maps=explained.maps[:1]), CLASSES, Colours())
    assert html.count('class="pending"') == 4
    assert len(images(html)) == 4 * 2


def test_the_share_is_beside_each_map(explained):
    assert re.findall(r"<small>([^<]*)</small>", grid(explained, CLASSES, Colours())) == [
        f"{share} %" for share in ("3.3", "17", "10", "23", "6.7", "20", "13", "27")
    ]


def test_colours_change_the_pictures_alone(explained):
    plain, others = (grid(explained, CLASSES, colours) for colours in (Colours(), Colours("rank", "viridis", 0.8)))
    assert re.sub(r'src="[^"]*"', "", plain) == re.sub(r'src="[^"]*"', "", others)
    assert sum((a != b).any() for a, b in zip(images(plain), images(others), strict=True)) == 8


def test_a_name_is_that_of_its_map(explained):
    names = map_names(explained, CLASSES)
    assert len(names) == 1 + 8
    assert names[0] == "picture"
    assert names[3] == "Grad-CAM, layer4, hen"
    assert names[6].startswith("Holistic-CAM positive no mask, layer1, <script>")
    for index in range(1, 9):
        column, layer, target = place(explained, index)
        assert explained.choice.layers[layer] in names[index]
        assert CLASSES[explained.choice.targets[target]] in names[index]
        shown = np.asarray(one_map(explained, index, Colours(opacity=1)))
        wanted = overlaid(explained.picture, explained.maps[column][layer][target], opacity=1)
        assert shown.shape == (480, 640, 3)
        assert np.abs(shown[8::16, 8::16].astype(float) - wanted).mean() < 8  # enlarged sixteen times
    assert place(explained, 0) == (1, 1, 1)
    assert one_map(explained, 0, Colours()).size == (640, 480)
