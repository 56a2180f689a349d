"""Crash-safe files: a file appears whole or not at all."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path

__all__ = ["remove_parts", "write_whole"]

# An unfinished file, in the top folder: on the same file system, and easy to find after a kill.
_PART_PATTERN = re.compile(r"\.part-[0-9a-f]{32}")


def write_whole(folder: Path, name: str, data: Iterable[bytes], *, flush: bool = True) -> None:
    """Write or replace `folder/name`, creating its parents: at any moment it is absent, the old file or the new one.

    Args:
        flush: Wait until the file is on the disk, so that it also survives a power cut.

    Raises:
        OSError: The file could not be written; nothing is left behind.
    """
    path, part = folder / name, folder / f".part-{uuid.uuid4().hex}"
    try:
        with part.open("wb") as file:
            file.writelines(data)
            if flush:
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
    """Remove the unfinished files that killed processes left."""
    for part in folder.glob(".part-*"):
        if _PART_PATTERN.fullmatch(part.name):
            part.unlink(missing_ok=True)
