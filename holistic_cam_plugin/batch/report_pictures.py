"""The pictures of a report: maps in the colours of a colour map, and where the page finds them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.store import checksum, write_whole
from holistic_cam_plugin.display import COLORMAPS

__all__ = ["PicturesBeside", "PicturesInside", "legend_png", "map_png"]


class PicturesBeside:
    """Pictures in a folder beside the page, loaded when they come into sight.

    A file is named by its content. So a page shows what it was written for at any moment, also while the next one is
    being made, and names of images never become names of files or links.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._used: set[str] = set()

    def address(self, data: bytes, kind: str) -> str:
        """Where the page finds the picture, a JPEG or PNG file; OSError where it can't be written."""
        file = f"{checksum(data)[:32]}.{kind}"
        path = self.folder / self.name / file
        if not path.is_file() or path.read_bytes() != data:
            write_whole(self.folder, f"{self.name}/{file}", [data])
        self._used.add(file)
        return f"{self.name}/{file}"

    def remove_others(self) -> None:
        """Remove the pictures of earlier pages."""
        for kind in ("jpeg", "png"):
            for path in (self.folder / self.name).glob(f"*.{kind}"):
                if path.name not in self._used:
                    path.unlink(missing_ok=True)


class PicturesInside:
    """Pictures in the page itself."""

    def address(self, data: bytes, kind: str) -> str:
        """The picture as a data URI."""
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def remove_others(self) -> None:
        """There are no others."""


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
