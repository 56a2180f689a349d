"""Files of the output: called after their images, whatever these are called, and written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from holistic_cam_plugin.batch.store import write_whole
from holistic_cam_plugin.batch.writing import OutputError
from holistic_cam_plugin.errors import UsageError

__all__ = ["array_name", "figure_name", "output_stems", "prepared_folder", "shown_name", "written"]

LONGEST_STEM = 120  # bytes; most file systems take names of 255, and what follows is a method, a layer and a class
LONGEST_SHOWN = 100  # characters
_RESERVED = '<>:"/\\|?*'  # of one system or another


def output_stems(images: Iterable[Path]) -> list[str]:
    """For each image the beginning of its files' names: its own name without the ending, where that can be.

    They differ, also where upper and lower case are the same: a second image of one name gets a number.
    """
    wanted = [_plain(image.stem) for image in images]
    reserved, used, stems = set(map(_folded, wanted)), set[str](), []
    for stem in wanted:
        found, number = stem, 2
        while _folded(found) in used or (found != stem and _folded(found) in reserved):
            found, number = f"{stem}_{number}", number + 1
        used.add(_folded(found))
        stems.append(found)
    return stems


def _plain(stem: str) -> str:
    """The stem itself, or with a checksum of it in the place of what a file's name should not have."""
    text = os.fsencode(stem).decode("utf-8", errors="backslashreplace")
    plain = "".join(c if c.isprintable() and c not in _RESERVED else "_" for c in text)
    bare = plain.lstrip(".-")  # a leading dot hides a file, a leading dash makes an option of it
    if bare == stem and len(bare.encode()) <= LONGEST_STEM:
        return stem
    start = bare.encode()[: LONGEST_STEM - 9].decode(errors="ignore")
    return f"{start}_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shown_name(image: Path) -> str:
    """The image's name in one short line that can be written anywhere."""
    text = os.fsencode(image.name).decode("utf-8", errors="backslashreplace")
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    half = LONGEST_SHOWN // 2
    return line if len(line) <= LONGEST_SHOWN else f"{line[:half]}…{line[1 - half :]}"


def figure_name(stem: str) -> str:
    """An image's figure."""
    return f"{stem}_holistic_cam.png"


def array_name(stem: str, method: str, layer: str, target: int | None) -> str:
    """One of an image's maps; None for the only target."""
    return f"{stem}_{method}_{layer}{'' if target is None else f'_{target}'}.npy"


def prepared_folder(folder: Path, names: Iterable[str]) -> Path:
    """The folder, made if need be.

    Raises:
        UsageError: it takes no files, or there is a folder in the place of one of them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"the output folder {folder} can't be used: {error.strerror}") from error
    for name in names:
        if (folder / name).is_dir():
            raise UsageError(f"{folder / name} is a folder where a file is to be written: name another --output-dir")
    return folder


def written(folder: Path, name: str, data: bytes) -> Path:
    """The file of this name, or what replaces it, written whole.

    Raises:
        OutputError: it can't be; an earlier file of this name is as it was.
    """
    try:
        write_whole(folder, name, [data])
    except OSError as error:
        raise OutputError(f"{folder / name} can't be written: {error.strerror}") from error
    return folder / name
