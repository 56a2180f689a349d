"""Hints on what is given in the place of an image or a command."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from holistic_cam_plugin.cli.printing import complain
from holistic_cam_plugin.errors import UsageError, check_file, near_matches
from holistic_cam_plugin.models.network import find_hub, is_reachable
from holistic_cam_plugin.names import DIGITS, FOLDERS, HUGGING_FACE, LITE0, OPEN_CLIP, TIMM

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
    """Print a line if a model's files can come from a cache alone: it takes seconds to import what will tell."""
    for model, path in zip(models, weights, strict=True):
        server = "" if path else _find_server(model)
        if server and not is_reachable(server):
            complain(
                f"holistic-cam: {urlsplit(server).hostname} cannot be reached: {model} is taken from the cache on this "
                "machine, if it is there; --weights FILE and --model hf/./FOLDER take local files"
            )
            return


def _find_server(model: str) -> str:
    """The address that a model's files come from; empty if it needs none."""
    if model.startswith((TIMM, HUGGING_FACE, OPEN_CLIP)):
        is_folder = model.startswith(HUGGING_FACE) and model.removeprefix(HUGGING_FACE).startswith(FOLDERS)
        local = is_folder or os.environ.get("HF_HUB_OFFLINE")
        return "" if local else find_hub()
    # As torch.hub.get_dir(), without importing torch.
    home = Path(os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch"))
    cached = home.expanduser().glob(f"hub/checkpoints/{glob.escape(model)}[-_]*")
    return "" if model in (DIGITS, LITE0) or ":" in model or any(cached) else "https://download.pytorch.org"
