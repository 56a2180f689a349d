"""Sheets of an image and its maps, as JPEG files."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.display.maps import overlay_map

__all__ = ["encode_jpeg", "encode_overlays"]

QUALITY = 90
LARGEST_SIDE = 65_500  # of a JPEG, in pixels


def encode_overlays(pixels: NDArray[np.uint8], maps: NDArray[np.float32]) -> bytes:
    """Draw the image, and each map over it; return a JPEG file.

    Args:
        pixels: `(H, W, 3)`, RGB.
        maps: `(methods, layers, targets, H, W)` in [0, 1]: a row per layer and target, a column per method.

    Raises:
        ValueError: The sheet is larger than a JPEG can be.
    """
    methods, layers, targets, height, width = maps.shape
    if max(sides := ((methods + 1) * width, layers * targets * height)) > LARGEST_SIDE:
        raise ValueError(f"the overlays are {sides[0]} x {sides[1]} px, a JPEG has at most {LARGEST_SIDE}")
    picture = np.divide(pixels, 255, dtype=np.float32)
    rows = [
        np.hstack([pixels, *(overlay_map(picture, column[place]) for column in maps)])
        for place in np.ndindex(layers, targets)
    ]
    return encode_jpeg(Image.fromarray(np.vstack(rows)))


def encode_jpeg(picture: Image.Image) -> bytes:
    """Return the picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
