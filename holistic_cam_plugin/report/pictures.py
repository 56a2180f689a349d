"""The pictures of a report: maps as PNG files, and where the page finds them."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.display.maps import find_colormap
from holistic_cam_plugin.files import write_whole

__all__ = ["PICTURES", "AddPicture", "encode_data_uri", "encode_legend", "encode_map", "store_pictures"]

PICTURES = "pictures"  # beside the page

_PICTURE_PATTERN = re.compile(r"[0-9a-f]{32}\.(jpeg|png)")

# Takes a picture's bytes and its format, jpeg or png; returns its URL on the page.
AddPicture = Callable[[bytes, str], str]


@contextmanager
def store_pictures(folder: Path) -> Iterator[AddPicture]:
    """Store pictures in the page's folder; a browser loads them when they scroll into view.

    Files are named by their content: a page keeps its pictures while the next one is made, and names of images never
    become file names or links. After success the pictures of earlier pages are removed.

    Raises:
        OSError: The pictures could not be written.
    """
    used: set[str] = set()

    def add(data: bytes, kind: str) -> str:
        name = f"{PICTURES}/{hashlib.sha256(data).hexdigest()[:32]}.{kind}"
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            write_whole(folder, name, [data], flush=False)
        used.add(path.name)
        return name

    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    yield add
    for path in (folder / PICTURES).iterdir():
        if _PICTURE_PATTERN.fullmatch(path.name) and path.name not in used:
            path.unlink()


def encode_data_uri(data: bytes, kind: str) -> str:
    """Return a URL that contains the picture itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encode_map(saliency_map: NDArray[np.floating], colormap: str) -> bytes:
    """Return a map as a PNG file, in the colours that pytorch-grad-cam blends with the image.

    Args:
        saliency_map: `(H, W)` in [0, 1].
        colormap: One of `names.COLORMAPS`.
    """
    return _encode_png((255 * saliency_map.astype(np.float32)).astype(np.uint8), colormap)


def encode_legend(colormap: str) -> bytes:
    """Return the colours from 0 to 1, left to right, as a PNG file of 256 x 1 px."""
    return _encode_png(np.arange(256, dtype=np.uint8)[None], colormap)


def _encode_png(levels: NDArray[np.uint8], colormap: str) -> bytes:
    picture = Image.fromarray(levels)
    picture.putpalette(_make_palette(colormap))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@cache
def _make_palette(colormap: str) -> bytes:
    blue_green_red = cv2.applyColorMap(np.arange(256, dtype=np.uint8), find_colormap(colormap)).reshape(256, 3)
    return blue_green_red[:, ::-1].tobytes()
