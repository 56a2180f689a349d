"""Masks and boxes in the pixels of the map, against a drawing that goes the picture's own way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.report.objects import draw_outline, find_mask, read_boxes, read_mask, read_upright

# Resized to the shorter side and cropped; squashed; not resized.
GEOMETRIES = [
    (Preprocessing((0.5,) * 3, (0.5,) * 3, (64, 64), resize, "bilinear", "torchvision"), crop)
    for resize in (72, (64, 64), None)
    for crop in (True, False)
]
BOX = (100, 40, 180, 120)


def draw(size, box=BOX):
    """Return a black picture with a white box."""
    picture = Image.new("RGB", size)
    left, top, right, bottom = box
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill="white")
    return picture


@pytest.mark.parametrize(("preprocessing", "crop"), GEOMETRIES)
@pytest.mark.parametrize("size", [(240, 160), (160, 240)])
def test_an_object_stays_where_it_is_seen(tmp_path, preprocessing, crop, size):
    box = BOX if size[0] > size[1] else (40, 100, 120, 180)
    draw(size, box).save(tmp_path / "picture.png")
    picture = read_upright(tmp_path / "picture.png")
    seen = preprocessing.to_pixels(picture.pixels, crop=crop)[..., 0] >= 128
    assert seen.any()
    mask = read_mask(tmp_path / "picture.png", picture, preprocessing, crop)
    boxes = read_boxes(json.dumps([box]), picture, preprocessing, crop)
    for found in (mask, boxes):
        assert found.shape == seen.shape
        # Rounding to whole pixels differs at the edges only.
        assert (found & seen).sum() / (found | seen).sum() > 0.9


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_photographs(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    draw((240, 160)).save(tmp_path / "turned.png", exif=exif)
    preprocessing, crop = GEOMETRIES[0]
    picture = read_upright(tmp_path / "turned.png")
    assert (picture.width, picture.height) == ((160, 240) if turn >= 5 else (240, 160))
    seen = preprocessing.to_pixels(picture.pixels, crop=crop)[..., 0] >= 128
    assert (read_mask(tmp_path / "turned.png", picture, preprocessing, crop) == seen).mean() > 0.97
    white = np.argwhere(np.asarray(picture.pixels)[..., 0] > 0)  # the box in the upright picture
    (top, left), (bottom, right) = white.min(axis=0).tolist(), (white.max(axis=0) + 1).tolist()
    boxes = read_boxes(json.dumps([[left, top, right, bottom]]), picture, preprocessing, crop)
    assert (boxes == seen).mean() > 0.97


def test_boxes_are_in_pixels_of_the_file_although_large_photographs_are_reduced(tmp_path):
    size, box = (4800, 4400), (2400, 1000, 4000, 3000)
    draw(size, box).save(tmp_path / "large.jpg")
    picture = read_upright(tmp_path / "large.jpg")
    assert (picture.width, picture.height) == size
    assert picture.pixels.width < 4800
    preprocessing, crop = GEOMETRIES[0]
    seen = preprocessing.to_pixels(picture.pixels, crop=crop)[..., 0] >= 128
    boxes = read_boxes(json.dumps([box]), picture, preprocessing, crop)
    assert (boxes & seen).sum() / (boxes | seen).sum() > 0.9


def test_several_boxes_are_one_object_and_what_is_outside_does_not_count(tmp_path):
    draw((240, 160)).save(tmp_path / "x.png")
    picture = read_upright(tmp_path / "x.png")
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, (160, 160), None, "bilinear", "torchvision")
    two = read_boxes("[[40, 0, 60, 10], [0, 0, 50, 5]]", picture, preprocessing, True)
    expected = np.zeros((160, 160), bool)
    expected[0:10, 0:20] = expected[0:5, 0:10] = True  # 40 px to the left are cropped
    np.testing.assert_array_equal(two, expected)
    assert not read_boxes("[[0, 0, 30, 10]]", picture, preprocessing, True).any()


@pytest.mark.parametrize("peak", [1, 255])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_a_mask_of_any_size_and_peak_covers_the_picture(tmp_path, peak, scale):
    picture = draw((240, 160))
    picture.save(tmp_path / "picture.png")
    small = picture.convert("L").resize((int(240 * scale), int(160 * scale)), Image.Resampling.NEAREST)
    Image.fromarray(np.asarray(small) // 255 * np.uint8(peak)).save(tmp_path / "mask.png")
    preprocessing, crop = GEOMETRIES[2]
    read = read_upright(tmp_path / "picture.png")
    whole = read_mask(tmp_path / "picture.png", read, preprocessing, crop)
    assert (read_mask(tmp_path / "mask.png", read, preprocessing, crop) == whole).mean() > 0.98


def test_what_is_no_mask(tmp_path):
    preprocessing, crop = GEOMETRIES[0]
    draw((240, 160)).save(tmp_path / "x.png")
    picture = read_upright(tmp_path / "x.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UsageError, match=r"^text\.png cannot be read as an image: cannot identify"):
        read_mask(tmp_path / "text.png", picture, preprocessing, crop)
    classes = np.repeat(np.arange(4, dtype=np.uint8), 60)[None].repeat(160, axis=0)
    Image.fromarray(classes).save(tmp_path / "classes.png")
    with pytest.raises(UsageError, match=r"^classes\.png has more than two values, where a mask is white on black"):
        read_mask(tmp_path / "classes.png", picture, preprocessing, crop)
    Image.new("L", (240, 160)).save(tmp_path / "black.png")
    assert not read_mask(tmp_path / "black.png", picture, preprocessing, crop).any()
    for odd in ("nothing", "[[1, 2, 3]]", '{"a": 1}', '["a"]'):
        with pytest.raises(UsageError, match=r"boxes must be \[\[left, top, right, bottom\], \.\.\.\], got "):
            read_boxes(odd, picture, preprocessing, crop)


def test_masks_are_found_by_path_and_name(tmp_path):
    for name in ("a/x.jpg.png", "a/x.png", "b/x.png", "c/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [find_mask(tmp_path, f"{folder}/x.jpg") for folder in "abcd"]
    assert found == [tmp_path / "a/x.jpg.png", tmp_path / "b/x.png", tmp_path / "c/x.jpg", None]


def test_an_outline_encloses_the_mask():
    mask = np.zeros((9, 12), bool)
    mask[2:6, 3:9] = True
    assert draw_outline(mask) == "M3 2L3 5L8 5L8 2Z"
    assert draw_outline(np.zeros((9, 12), bool)) == ""
