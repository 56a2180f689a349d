"""The files of an image: its maps, and their overlays. a.jpg and a.png stay two images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from holistic_cam_plugin.explain import Explanation

__all__ = ["encode_maps", "is_intact", "map_name", "overlay_name"]


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
