"""Files that appear whole or not at all, and the bytes of an image's maps."""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["checksum", "file_checksum", "map_bytes", "map_name", "remove_parts", "write_whole"]

# One unfinished file a process, beside the final folders: the same file system, and easy to find after a kill.
_PART = f".part-{uuid.uuid4().hex}"
_A_PART = re.compile(r"\.part-[0-9a-f]{32}")


def map_name(name: str) -> str:
    """Where an image's maps go, below the output folder. The ending stays: a.jpg and a.png are two images."""
    return f"maps/{name}.npz"


def map_bytes(
    maps: NDArray[np.floating],
    methods: Sequence[str],
    layers: Sequence[str],
    targets: Sequence[int],
    scores: Sequence[float],
) -> bytes:
    """An `.npz` file of one image; the same values always give the same bytes.

    Args:
        maps: `(methods, layers, targets, H, W)`, float16 or float32, in [0, 1].
        methods, layers: names.
        targets: class indices.
        scores: the model's output for each target.
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


def write_whole(folder: Path, name: str, data: Iterable[bytes]) -> None:
    """Write `folder/name`, or replace it: at any moment the file is the old one, the new one, or not there.

    Raises:
        OSError: nothing is left behind.
    """
    path, part = folder / name, folder / _PART
    try:
        with part.open("wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            part.replace(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove the unfinished files of processes that were killed."""
    for part in folder.glob(".part-*"):
        if _A_PART.fullmatch(part.name):
            part.unlink(missing_ok=True)


def checksum(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal; empty if there is no such file."""
    total = hashlib.sha256()
    try:
        if not path.is_file():
            return ""  # a pipe would be waited for
        with path.open("rb") as file:
            while block := file.read(2**20):
                total.update(block)
    except OSError:
        return ""
    return total.hexdigest()
