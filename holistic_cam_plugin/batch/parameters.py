"""The parameters of an output folder: recorded once and compared in every run, so that two settings never mix."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from torch import nn

from holistic_cam_plugin.batch.record import RECORD, Record, find_records
from holistic_cam_plugin.errors import UsageError

__all__ = ["compare_parameters", "hash_parameters", "hash_weights", "open_output", "read_package_versions"]

# The packages that determine the maps: the method, the model's operations, and how a file becomes pixels.
PACKAGES = ("holistic-cam-plugin", "grad-cam", "torch", "torchvision", "numpy", "opencv-python-headless", "Pillow")
# Further packages, by the prefix of the model's name.
LIBRARIES = {"timm/": "timm", "hf/": "transformers", "open_clip/": "open_clip_torch"}
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


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 checksum in hexadecimal of the model's parameters and buffers with their names."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def hash_parameters(parameters: Mapping[str, object]) -> str:
    """Return twelve hexadecimal digits that identify the parameters that determine the maps."""
    compared = {key: value for key, value in parameters.items() if key not in _FREE}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def open_output(folder: Path, name: str, parameters: Mapping[str, object], classes: Sequence[str]) -> Iterator[Record]:
    """Open the record of a run for writing, in a folder that is empty or holds maps of the same parameters.

    Args:
        folder: Created if needed.
        name: Of the record.
        parameters: What determines the maps, JSON-serializable.
        classes: The model's.

    Raises:
        UsageError: The folder has other parameters or other files, another run is using it, or it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [child.name for child in folder.iterdir()]
    except OSError as error:
        raise UsageError(f"cannot use the output folder {folder}: {error}") from error
    records = find_records(folder)
    if not records and any(not name.startswith(".") for name in names):
        raise UsageError(f"{folder} contains files but no {RECORD}: choose an empty or new --output")
    if others := [path.name for path in records if (path.name == RECORD) != (name == RECORD)]:
        shards = "run it without --shard" if name != RECORD else "merge them: holistic-cam merge"
        raise UsageError(f"{folder} contains {', '.join(others)[:200]}: {shards}, or choose another --output")
    with Record(folder / name, write=True) as record:
        for path in records:
            if path != record.path:
                with Record(path) as other:
                    compare_parameters(folder, other.parameters, parameters)
        compare_parameters(folder, record.parameters, parameters)
        record.set_parameters(parameters, classes)
        yield record


def compare_parameters(folder: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Raise UsageError if the parameters differ; those of a new record are empty."""
    if not old:
        return
    changed = []
    for key in sorted((old.keys() | new.keys()) - set(_FREE)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += [f"{k} ({_shorten(before.get(k))}, now {v})" for k, v in after.items() if before.get(k) != v]
        elif before != after:
            changed.append(f"{key} ({_shorten(before)}, now {_shorten(after)})")
    if changed:
        raise UsageError(
            f"{folder} holds maps made with other parameters: {', '.join(changed)}. Restore them, or choose another "
            "--output"
        )
    _check_input(folder, old.get("input"), new.get("input"))


def _check_input(folder: Path, before: object, now: object) -> None:
    """Raise UsageError if the input is another folder and the earlier one still exists; otherwise it has moved."""
    if isinstance(before, str) and isinstance(now, str) and before != now:
        with suppress(OSError, ValueError):
            if not os.path.samefile(before, now):
                raise UsageError(f"{folder} holds the maps of {before}, not of {now}: choose another --output")


def _shorten(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:12] + "..."
