"""How much of an upload is decoded."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFile

from holistic_cam_plugin.app.pictures import MOST_PIXELS, read_upload
from holistic_cam_plugin.errors import UsageError


def test_a_small_file_with_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (12_000, 12_000)).save(path)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(UsageError, match="the picture has 12000 x 12000 px: reduce it to at most 34 megapixels"):
        read_upload(path)


def test_a_large_photograph_is_decoded_at_a_part_of_its_size(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("L", (7000, 6000), 90).save(path)
    assert read_upload(path).size == (3500, 3000)
    Image.new("L", (7000, 6000), 90).save(path, progressive=True)  # the decoder holds all of it
    with pytest.raises(UsageError, match="7000 x 6000 px"):
        read_upload(path)


def test_the_largest_screen_is_no_mistake(tmp_path):
    assert MOST_PIXELS > 7680 * 4320
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    assert (np.asarray(read_upload(tmp_path / "small.png")) == pixels).all()
