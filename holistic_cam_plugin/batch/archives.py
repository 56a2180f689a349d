"""The archive of an image's maps: an `.npz` file, which is a zip file with the CRC-32 of its content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_maps", "is_intact", "map_name"]


def map_name(name: str) -> str:
    """Return the path of an image's maps, relative to the output folder. a.jpg and a.png stay two images."""
    return f"maps/{name}.npz"


def encode_maps(
    maps: NDArray[np.floating],
    methods: Sequence[str],
    layers: Sequence[str],
    targets: Sequence[int],
    scores: Sequence[float],
) -> bytes:
    """Return the `.npz` file of one image.

    Args:
        maps: `(methods, layers, targets, H, W)`, float16 or float32, in [0, 1].
        methods, layers: Names.
        targets: Class indices.
        scores: The model's output for each target.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        maps=maps,
        methods=np.array(methods),
        layers=np.array(layers),
        targets=np.array(targets, np.int64),
        scores=np.array(scores, np.float32),
    )
    return buffer.getvalue()


def is_intact(path: Path, verify: bool = False) -> bool:
    """Whether the archive can be read.

    Its list of content, at its end, tells whether it is whole; with `verify`, all of it is read and checked.
    """
    try:
        if not path.is_file():
            return False  # opening a FIFO would block
        with zipfile.ZipFile(path) as archive:
            return not verify or archive.testzip() is None
    except Exception:  # a damaged archive can raise errors of any type
        return False
