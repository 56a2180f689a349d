"""Maps of a crop over the whole photograph."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from holistic_cam_plugin.display import overlay_map
from holistic_cam_plugin.display.photographs import bound_size, is_whole, overlay_photograph, place_map, scale_box
from holistic_cam_plugin.models.preprocessing import Preprocessing

STYLE = {"scale": "linear", "colormap": "inferno", "opacity": 0.5}
# The crop and what is resized before it, for a photograph of 300 x 200 px.
CROPS = {
    "crop": ((112, 112), 128),
    "squash": ((112, 112), (112, 112)),
    "squash and crop": ((100, 112), (130, 150)),
    "no resize": ((120, 140), None),
    "padding": ((160, 200), 120),
}


def preprocess(kind):
    crop, resize = CROPS[kind]
    return Preprocessing((0.5,) * 3, (0.5,) * 3, crop, resize, "bilinear", "timm")


@pytest.mark.parametrize("kind", CROPS)
def test_a_square_comes_back_to_its_place(kind):
    square = np.zeros((200, 300), np.uint8)
    square[70:120, 130:190] = 255
    preprocessing = preprocess(kind)
    crop = preprocessing.to_pixels(Image.fromarray(square))[..., 0]
    placed = place_map(crop.astype(np.float32) / 255, preprocessing.find_crop(300, 200), (300, 200))
    assert placed.shape == (200, 300)
    rows, columns = np.nonzero(placed > 0.5)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx((130, 70, 190, 120), abs=1)
    assert rows.mean() + 0.5 == pytest.approx(95, abs=0.3)
    assert columns.mean() + 0.5 == pytest.approx(160, abs=0.3)


def test_what_was_cropped_away_is_not_a_number():
    placed = place_map(np.ones((112, 112), np.float32), preprocess("crop").find_crop(300, 200), (300, 200))
    # 112 of 192 x 128 px are 175 of 300 x 200 px, in the middle.
    rows, columns = np.nonzero(~np.isnan(placed))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx(
        (62.5, 12.5, 237.5, 187.5), abs=1
    )
    assert (placed[~np.isnan(placed)] == 1).all()


def test_padding_belongs_to_no_pixel():
    box = preprocess("padding").find_crop(300, 200)
    assert min(box[:2]) < 0
    assert not np.isnan(place_map(np.zeros((160, 200), np.float32), box, (300, 200))[:, 40:260]).any()


@pytest.mark.parametrize("light", [0, 40, 250], ids=["black", "dark", "light"])
def test_what_was_cropped_away_is_faded_and_the_rest_as_usual(light):
    photo = np.full((200, 300, 3), light, np.uint8)
    photo[..., 0] += 5
    crop_map = np.linspace(0, 1, 112 * 112, dtype=np.float32).reshape(112, 112)
    box = preprocess("crop").find_crop(300, 200)
    shown = overlay_photograph(photo, crop_map, box, **STYLE)
    placed = place_map(crop_map, box, (300, 200))
    unseen = np.isnan(placed)
    outside = shown[unseen]
    assert (outside == outside[:, :1]).all()  # grey
    assert outside.min() >= 255 * 0.69
    usual = overlay_map(photo.astype(np.float32) / 255, np.nan_to_num(placed))
    assert (shown[~unseen] == usual[~unseen]).all()


def test_the_rank_is_that_within_the_crop():
    crop_map = np.arange(112 * 112, dtype=np.float32).reshape(112, 112) ** 4
    crop_map /= crop_map.max()
    photo, box = np.full((112, 112, 3), 99, np.uint8), (0.0, 0.0, 112.0, 112.0)
    ranked = overlay_photograph(photo, crop_map, box, **STYLE | {"scale": "rank"})
    even = overlay_photograph(photo, np.linspace(0, 1, 112 * 112, dtype=np.float32).reshape(112, 112), box, **STYLE)
    assert np.abs(ranked.astype(int) - even).max() <= 3


def test_sizes_and_boxes():
    assert bound_size((4000, 1000), (500, 500)) == (500, 125)
    assert bound_size((1000, 4000), (500, 500)) == (125, 500)
    assert bound_size((5000, 1), (500, 500)) == (500, 1)
    assert scale_box((1, 2, 3, 4), (10, 20), (20, 10)) == (2, 1, 6, 2)
    assert is_whole((0, 0, 30, 20), (30, 20))
    assert is_whole((-5, 0.2, 35, 19.8), (30, 20))
    assert not any(is_whole(box, (30, 20)) for box in [(1, 0, 30, 20), (0, 1, 30, 20), (0, 0, 29, 20), (0, 0, 30, 19)])
