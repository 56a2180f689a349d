"""The files of an image: its maps, and their overlays on the image as the model saw it. a.jpg and a.png stay two."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image

from holistic_cam_plugin.explain import Explanation

__all__ = ["encode_jpeg", "encode_maps", "encode_overlays", "is_intact", "map_name", "overlay_name"]

QUALITY = 90
LARGEST_SIDE = 65_500  # of a JPEG, in pixels


def map_name(name: str) -> str:
    """Return the path of an image's maps, relative to the output folder."""
    return f"maps/{name}.npz"


def overlay_name(name: str) -> str:
    """Return the path of an image's overlays, relative to the output folder."""
    return f"overlays/{name}.jpg"


def encode_maps(found: Explanation, dtype: str) -> bytes:
    """Return an image's `.npz` file: `maps` (methods, layers, targets, H, W) in [0, 1] and what they are of."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        maps=np.stack(found.maps).astype(dtype),
        methods=np.array([method.key for method in found.methods]),
        layers=np.array(found.layers),
        targets=np.array(found.targets, np.int64),
        scores=np.array(found.scores[list(found.targets)], np.float32),
    )
    return buffer.getvalue()


def encode_overlays(pixels: NDArray[np.uint8], maps: NDArray[np.float32]) -> bytes:
    """Draw the image, and each map over it as pytorch-grad-cam does; return a JPEG file.

    Args:
        pixels: `(H, W, 3)`, RGB.
        maps: `(methods, layers, targets, H, W)` in [0, 1]: a row per layer and target, a column per method.

    Raises:
        ValueError: The sheet is larger than a JPEG can be.
    """
    methods, layers, targets, height, width = maps.shape
    if max(sides := ((methods + 1) * width, layers * targets * height)) > LARGEST_SIDE:
        raise ValueError(f"the overlays are {sides[0]} x {sides[1]} px, a JPEG has at most {LARGEST_SIDE}")
    picture = pixels.astype(np.float32) / 255
    rows = [
        np.hstack([pixels, *(show_cam_on_image(picture, column[place], use_rgb=True) for column in maps)])
        for place in np.ndindex(layers, targets)
    ]
    return encode_jpeg(Image.fromarray(np.vstack(rows)))


def encode_jpeg(picture: Image.Image) -> bytes:
    """Return the picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def is_intact(path: Path, verify: bool) -> bool:
    """Whether the file is whole, judging by its end; with `verify`, maps are read and their CRC-32 is checked."""
    try:
        if not path.is_file():
            return False  # opening a FIFO would block
        if path.suffix == ".jpg":
            with path.open("rb") as file:
                file.seek(-2, io.SEEK_END)
                return file.read() == b"\xff\xd9"
        with zipfile.ZipFile(path) as archive:
            return not verify or archive.testzip() is None
    except Exception:  # a damaged archive can raise errors of any type
        return False
