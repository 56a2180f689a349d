"""The archive of an image's maps, and checksums."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_maps", "hash_bytes", "hash_file", "map_name"]


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
    """Return the `.npz` file of one image; the same values always give the same bytes.

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


def hash_bytes(data: bytes) -> str:
    """Return the SHA-256 checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 checksum of a file's content in hexadecimal; empty if it cannot be read."""
    total = hashlib.sha256()
    try:
        if not path.is_file():
            return ""  # opening a FIFO would block
        with path.open("rb") as file:
            while block := file.read(2**20):
                total.update(block)
    except OSError:
        return ""
    return total.hexdigest()
