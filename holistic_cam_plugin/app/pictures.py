"""Uploaded pictures, of a bounded size."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.images import DRAFT_SIDE, open_image, read_image

__all__ = ["MOST_PIXELS", "read_upload"]

# A file of some kilobytes can hold an image of a hundred megapixels, which takes half a gigabyte of memory.
MOST_PIXELS = 2**25


def read_upload(path: Path) -> Image.Image:
    """Read an upright RGB image as `read_image` does; messages call it "the picture", as its path is the server's.

    Raises:
        UsageError: it is damaged, not an image, or would be decoded to more than `MOST_PIXELS`.
    """
    try:
        _check_size(path)
        return read_image(path)
    except UsageError as error:
        raise UsageError(str(error).replace(str(path), "the picture")) from error


def _check_size(path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with open_image(path) as image:  # reads the header
                if "progression" not in image.info:  # such a JPEG file is decoded at its full size
                    image.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
                width, height = image.size
    except Exception:  # `read_image` says what is wrong
        return
    if width * height > MOST_PIXELS:
        raise UsageError(
            f"the picture has {width} x {height} px: reduce it to at most {MOST_PIXELS / 1e6:.0f} megapixels"
        )
