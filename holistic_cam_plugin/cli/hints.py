"""Hints on what is given in the place of an image or a command."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from holistic_cam_plugin.cli.printing import complain
from holistic_cam_plugin.errors import UsageError, check_file, near_matches
from holistic_cam_plugin.models.network import find_hub, is_reachable
from holistic_cam_plugin.names import HUB

__all__ = ["check_command", "check_image", "tell_offline"]

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


def tell_offline(models: Sequence[str], weights: Sequence[Path | None]) -> None:
    """Print a line if a model's files can come from the cache alone: their library takes seconds to tell."""
    published = [
        model
        for model, path in zip(models, weights, strict=True)
        if path is None and model.startswith(HUB) and not model.startswith(("hf/.", "hf//", "hf/~"))
    ]
    if published and not is_reachable(find_hub()):
        complain(
            f"holistic-cam: {urlsplit(find_hub()).hostname} cannot be reached: {published[0]} is taken from the cache "
            "on this machine, if it is there; --weights FILE and --model hf/./FOLDER take local files"
        )
