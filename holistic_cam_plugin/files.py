"""Crash-safe files: a file appears whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(folder: Path, name: str, data: Iterable[bytes], part: str = "", *, flush: bool = True) -> None:
    """Write or replace `folder/name`, creating its parents: at any moment it is absent, the old file or the new one.

    Args:
        part: The name of the unfinished file in `folder`, for a caller that writes one file at a time: the next write
            replaces what a killed one left. By default, a unique name.
        flush: Wait until the file is on the disk, so that it also survives a power cut.

    Raises:
        OSError: The file could not be written; nothing is left behind.
    """
    path, unfinished = folder / name, folder / (part or f".part-{uuid.uuid4().hex}")
    try:
        unfinished.unlink(missing_ok=True)  # it may be a link
        with unfinished.open("xb") as file:
            file.writelines(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        try:
            unfinished.replace(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
