"""The pictures of a report: maps in the colours of a colour map, and where the page finds them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.lock import locked
from holistic_cam_plugin.batch.store import checksum, write_whole
from holistic_cam_plugin.display import COLORMAPS

__all__ = ["Address", "data_uri", "legend_png", "map_png", "pictures_beside"]

_A_PICTURE = re.compile(r"[0-9a-f]{32}\.(jpeg|png)")


# From a picture's bytes and its format, jpeg or png, to where the page finds it.
Address = Callable[[bytes, str], str]


@contextmanager
def pictures_beside(folder: Path, name: str) -> Iterator[Address]:
    """Pictures in the folder `name` beside the page, which a browser loads when they come into sight.

    A file is named by its content. So a page shows what it was written for at any moment, also while the next one is
    being made, and names of images never become names of files or links. If all went well, the pictures of earlier
    pages are removed at the end.

    Raises:
        UsageError: another report is being made.
        OSError: they can't be written.
    """
    used: set[str] = set()

    def address(data: bytes, kind: str) -> str:
        file = f"{checksum(data)[:32]}.{kind}"
        path = folder / name / file
        if not path.is_file() or path.read_bytes() != data:
            write_whole(folder, f"{name}/{file}", [data])
        used.add(file)
        return f"{name}/{file}"

    (folder / name).mkdir(exist_ok=True)
    with locked(folder / name):
        yield address
        for path in (folder / name).iterdir():
            if _A_PICTURE.fullmatch(path.name) and path.name not in used:
                path.unlink()


def data_uri(data: bytes, kind: str) -> str:
    """The picture itself in the place of its address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def map_png(saliency_map: NDArray[np.floating], colormap: str) -> bytes:
    """A map `(H, W)` in [0, 1] as a PNG file, in the colours that the library gives it before it mixes in the picture.

    Args:
        colormap: a key of `COLORMAPS`.
    """
    return _png((255 * saliency_map.astype(np.float32)).astype(np.uint8), colormap)


def legend_png(colormap: str) -> bytes:
    """The colours from 0 to 1, left to right: 256 x 1 px."""
    return _png(np.arange(256, dtype=np.uint8)[None], colormap)


def _png(levels: NDArray[np.uint8], colormap: str) -> bytes:
    blue_green_red = cv2.applyColorMap(np.arange(256, dtype=np.uint8), COLORMAPS[colormap]).reshape(256, 3)
    picture = Image.fromarray(levels)
    picture.putpalette(blue_green_red[:, ::-1].tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
