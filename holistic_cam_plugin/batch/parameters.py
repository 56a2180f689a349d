"""The parameters of an output folder: recorded once and compared in every run, so that two settings never mix."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from holistic_cam_plugin.batch.record import RECORD, Record
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.names import HUGGING_FACE, OPEN_CLIP, TIMM

__all__ = ["hash_parameters", "open_output", "read_package_versions"]

# The packages that determine the maps: the method, the model's operations, and how a file becomes pixels.
PACKAGES = ("holistic-cam-plugin", "grad-cam", "torch", "torchvision", "numpy", "opencv-python-headless", "Pillow")
# Further packages, by the prefix of the model's name.
LIBRARIES = {TIMM: "timm", HUGGING_FACE: "transformers", OPEN_CLIP: "open_clip_torch"}
# Informational: the images may have moved since, and maps of other batches differ by rounding alone.
_FREE = ("input", "batch_size")


def read_package_versions(model: str | None = None) -> dict[str, str]:
    """Return the versions of the packages that determine this model's maps; "not installed" for a missing one."""
    versions = {}
    for package in (*PACKAGES, *(library for prefix, library in LIBRARIES.items() if f"{model}".startswith(prefix))):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def hash_parameters(parameters: Mapping[str, object]) -> str:
    """Return twelve hexadecimal digits that identify the parameters that determine the maps."""
    compared = {key: value for key, value in parameters.items() if key not in _FREE}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def open_output(folder: Path, parameters: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Record]:
    """Open the record of an output folder for writing, until the body ends; the folder is created if needed.

    Raises:
        UsageError: The folder has other parameters or other files, another run is using it, or it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [child.name for child in folder.iterdir()]
    except OSError as error:
        raise UsageError(f"cannot use the output folder {folder}: {error}") from error
    if RECORD not in names and any(not name.startswith(".") for name in names):
        raise UsageError(f"{folder} contains files but no {RECORD}: choose an empty or new --output")
    with Record(folder / RECORD, write=True) as record:
        if known := record.parameters:
            _compare(folder, known, parameters)
        record.set_parameters(parameters, classes)
        yield record


def _compare(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise UsageError if the parameters differ, or if the input is another folder and the earlier one still exists."""
    before, now = ({**found, **found.get("versions", {}), "versions": None} for found in (old, new))
    changed = [
        f"{key} ({_shorten(before.get(key))}, now {_shorten(now.get(key))})"
        for key in sorted(before.keys() | now.keys())
        if key not in _FREE and before.get(key) != now.get(key)
    ]
    if changed:
        raise UsageError(
            f"{folder} holds maps made with other parameters: {', '.join(changed)}. Restore them, or choose another "
            "--output"
        )
    with suppress(OSError, TypeError, ValueError):
        if not os.path.samefile(before["input"], now["input"]):
            raise UsageError(
                f"{folder} holds the maps of {before['input']}, not of {now['input']}: choose another --output"
            )


def _shorten(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:12] + "..."
