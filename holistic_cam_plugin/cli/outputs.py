"""Output files of `holistic-cam IMAGE`: named after the images, and written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from holistic_cam_plugin.errors import OutputError, UsageError, describe_error
from holistic_cam_plugin.files import write_whole

__all__ = ["choose_stems", "prepare_folder", "shorten_name", "write_file"]

LONGEST_STEM = 120  # bytes; most file systems take names of 255, and a method, a layer and a class follow
LONGEST_NAME = 100  # characters
_RESERVED = '<>:"/\\|?*'  # on one system or another


def choose_stems(images: Iterable[Path]) -> list[str]:
    """Choose the first part of the names of each image's files: its own name without the suffix, where that is valid.

    The stems differ even on file systems that ignore case: a second image of the same name gets a number.
    """
    wanted = [_sanitize(image.stem) for image in images]
    reserved, used, stems = set(map(_fold, wanted)), set[str](), []
    for stem in wanted:
        found, number = stem, 2
        while _fold(found) in used or (found != stem and _fold(found) in reserved):
            found, number = f"{stem}_{number}", number + 1
        used.add(_fold(found))
        stems.append(found)
    return stems


def _sanitize(stem: str) -> str:
    """The stem, or a valid one that ends in a checksum of it."""
    text = os.fsencode(stem).decode("utf-8", errors="backslashreplace")
    printable = "".join(c if c.isprintable() and c not in _RESERVED else "_" for c in text)
    bare = printable.lstrip(".-")  # a leading dot hides a file, a leading dash makes it an option
    if bare == stem and len(bare.encode()) <= LONGEST_STEM:
        return stem
    start = bare.encode()[: LONGEST_STEM - 9].decode(errors="ignore")
    return f"{start}_{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shorten_name(image: Path) -> str:
    """The image's name as one short line of printable characters."""
    text = os.fsencode(image.name).decode("utf-8", errors="backslashreplace")
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    half = LONGEST_NAME // 2
    return line if len(line) <= LONGEST_NAME else f"{line[:half]}…{line[1 - half :]}"


def prepare_folder(folder: Path, names: Iterable[str]) -> None:
    """Make the folder if there is none, and check that files of these names can be written.

    Raises:
        UsageError: the folder takes no files, or has a folder of one of these names.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"the output folder {folder} cannot be used: {describe_error(error)}") from error
    for name in names:
        if (folder / name).is_dir():
            raise UsageError(f"{folder / name} is a folder, but a file must be written there: name another --output")


def write_file(folder: Path, name: str, data: bytes) -> Path:
    """Write a file, or replace it.

    Raises:
        OutputError: it cannot be written; an earlier file of this name is left as it was.
    """
    try:
        write_whole(folder, name, [data])
    except OSError as error:
        raise OutputError(f"{folder / name} cannot be written: {describe_error(error)}") from error
    return folder / name
