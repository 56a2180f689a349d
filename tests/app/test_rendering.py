"""The table and the pictures of the page."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from holistic_cam_plugin.app.rendering import (
    Colours,
    Result,
    list_rows,
    locate_map,
    name_maps,
    render_pair,
    render_picture,
    render_table,
)
from holistic_cam_plugin.display import overlay_map
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.methods import Method

METHODS = [Method("gradcam", {}), Method("holisticcam", {"weighting": "positive", "fsd": False})]
CLASSES = ["ant", "<script>alert(1)</script>", "hen"]


@pytest.fixture
def result():
    """Two layers and two classes: a map is a constant but for its peak, so that one tells it from the others."""
    rng = np.random.default_rng(0)
    maps = [np.full((2, 2, 30, 40), 0.1, np.float32) for _ in METHODS]
    for number, saliency_map in enumerate(m for of_method in maps for of_layer in of_method for m in of_layer):
        saliency_map[: number + 1] = 1
    scores = np.zeros(3, np.float32)
    explanation = Explanation(METHODS, ["layer1", "layer4"], [2, 1], 2, scores, scores, maps, [0.0, 0.0])
    return Result(rng.random((30, 40, 3), np.float32), explanation, CLASSES)


def images(html):
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_layers_down_methods_across_the_picture_first(result):
    html = render_table(result, Colours())
    heads = re.findall(r'<th scope="(\w+)">(?:<span>)?([^<]*)', html)
    assert [name for scope, name in heads if scope == "col"] == [
        "picture", "Grad-CAM", "Holistic-CAM positive\nno mask",
    ]  # fmt: skip
    assert [name.split("\n")[0] for scope, name in heads if scope == "row"] == ["layer1", "layer4"] * 2
    pictures = images(html)
    assert len(pictures) == 4 * 3
    for row, (_, maps) in enumerate(list_rows(result)):
        original, *overlays = pictures[3 * row : 3 * row + 3]
        assert np.abs(original - 255 * result.picture).mean() < 12  # JPEG of noise
        for shown, saliency_map in zip(overlays, maps, strict=True):
            wanted = overlay_map(result.picture, saliency_map)
            assert np.abs(shown.astype(float) - wanted).mean() < 12


def test_names_of_classes_are_text(result):
    html = render_table(result, Colours())
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_what_is_not_computed_yet_has_its_place(result):
    half = result._replace(explanation=result.explanation._replace(maps=result.explanation.maps[:1]))
    html = render_table(half, Colours())
    assert html.count('class="pending"') == 4
    assert len(images(html)) == 4 * 2


def test_the_share_is_beside_each_map(result):
    assert re.findall(r"<small>([^<]*)</small>", render_table(result, Colours())) == [
        f"{share} %" for share in ("3.3", "17", "10", "23", "6.7", "20", "13", "27")
    ]


def test_colours_change_the_pictures_alone(result):
    plain, others = (render_table(result, colours) for colours in (Colours(), Colours("rank", "viridis", 0.8)))
    assert re.sub(r'src="[^"]*"', "", plain) == re.sub(r'src="[^"]*"', "", others)
    assert sum((a != b).any() for a, b in zip(images(plain), images(others), strict=True)) == 8


def test_a_name_is_that_of_its_map(result):
    names = name_maps(result)
    assert len(names) == 1 + 8
    assert names[0] == "picture"
    assert names[3] == "Grad-CAM, layer4, hen"
    assert names[6].startswith("Holistic-CAM positive no mask, layer1, <script>")
    for index in range(1, 9):
        column, layer, target = locate_map(result.explanation, index)
        assert result.explanation.layers[layer] in names[index]
        assert CLASSES[result.explanation.targets[target]] in names[index]
        html = render_pair(result, 0, index, Colours(opacity=1))
        original, shown = images(html)
        assert re.findall('alt="([^"]*)"', html) == ["picture", str(escape(names[index]))]
        wanted = overlay_map(result.picture, result.explanation.maps[column][layer, target], opacity=1)
        assert shown.shape == (480, 640, 3)
        assert np.abs(shown[8::16, 8::16].astype(float) - wanted).mean() < 8  # enlarged sixteen times
        assert np.abs(original[8::16, 8::16] - 255 * result.picture).mean() < 60  # noise, enlarged
    assert locate_map(result.explanation, 0) == (1, 1, 1)


def test_the_border_has_a_name(result):
    assert 'aria-label="Border between' in render_pair(result, 0, 1, Colours())


def test_the_picture_has_a_text(result):
    html = render_picture(result.picture)
    assert 'alt="the picture as the model sees it"' in html
    (shown,) = images(html)
    assert np.abs(shown - 255 * result.picture).mean() < 12
