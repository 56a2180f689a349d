"""Hints on what is given in the place of an image or a command."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from holistic_cam_plugin.errors import UsageError, check_file, near_matches

__all__ = ["check_command", "check_image"]

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)


def check_command(word: str, commands: Iterable[str]) -> None:
    """Raise UsageError if a word is neither an option nor a file, but similar to a command."""
    if word.startswith("-") or "." in word or "/" in word or os.path.exists(word):
        return
    if hint := near_matches(word, commands):
        raise UsageError(f"{word} is neither a command nor a file{hint}")


def check_image(path: Path) -> None:
    """Raise UsageError, with a hint, if this is not a file."""
    if str(path) == "-":
        raise UsageError("an image cannot be read from standard input: write it to a file, and name the file")
    if url := _URL.fullmatch(str(path)):  # a Path has lost a slash
        raise UsageError(f"{url[1]}://{url[2]} is an address, not a file: download the image first, and name the file")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder, not a file: holistic-cam batch {path} --output maps explains its images")
    check_file(path)
