"""The parameters of an output folder: written once and compared in every run, so that two settings never mix."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path

from torch import nn

from holistic_cam_plugin.batch.lock import lock_folder
from holistic_cam_plugin.errors import UsageError, check_regular
from holistic_cam_plugin.files import write_whole

__all__ = [
    "MAX_THREADS",
    "PARAMETERS",
    "claim_folder",
    "hash_parameters",
    "hash_weights",
    "read_package_versions",
    "read_parameters",
]

PARAMETERS = "parameters.json"

# More PyTorch threads are useless, and some systems crash. A folder from a larger machine can be continued.
MAX_THREADS = max(256, 4 * (os.cpu_count() or 1))

# The packages that determine the maps: the method, the model's operations, and how a file becomes pixels.
PACKAGES = ("holistic-cam-plugin", "grad-cam", "torch", "torchvision", "numpy", "opencv-python-headless", "Pillow")
# Further packages, by the prefix of the model's name.
LIBRARIES = {"timm/": "timm", "hf/": "transformers", "open_clip/": "open_clip_torch"}
# Informational: the images may have moved since.
_FREE = ("input",)


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
def claim_folder(folder: Path, parameters: Mapping[str, object], threads: int) -> Iterator[dict[str, object]]:
    """Lock the folder for this run until the body or the process ends, however it ends.

    Args:
        folder: Created if needed; must be empty, or the output of a run with the same parameters.
        parameters: What determines the maps, JSON-serializable. If `threads` is None, the folder's value is used.
        threads: The value for a new folder if the parameters have none.

    Yields:
        The folder's parameters.

    Raises:
        UsageError: The folder has other parameters or other files, another run is using it, or it is not writable.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = {child.name for child in folder.iterdir()}
            if PARAMETERS not in names and any(not name.startswith(".") for name in names):
                raise UsageError(f"{folder} contains files but no {PARAMETERS}: choose an empty or new --output")
            held.enter_context(lock_folder(folder, ", or choose another --output"))
            known = _reconcile(folder, parameters, threads)
        except OSError as error:
            raise UsageError(f"cannot use the output folder {folder}: {error}") from error
        yield known


def _reconcile(folder: Path, parameters: Mapping[str, object], threads: int) -> dict[str, object]:
    """Check the parameters against the folder's; return and write them, with the folder's number of threads."""
    path = folder / PARAMETERS
    final = {**parameters, "threads": parameters["threads"] or threads}
    if path.exists():
        known = read_parameters(path)
        stored = known.get("threads")
        if type(stored) is not int or not 1 <= stored <= MAX_THREADS:
            raise _unreadable_error(path, f"threads must be 1 to {MAX_THREADS}, got {_shorten(stored)}")
        _compare(folder, known, parameters)
        _check_input(folder, known.get("input"), parameters.get("input"))
        final["threads"] = stored
    data = (json.dumps(final, indent=2) + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        write_whole(folder, PARAMETERS, [data])
    return final


def read_parameters(path: Path) -> dict[str, object]:
    """Read a `parameters.json`.

    Raises:
        UsageError: It is not JSON, or not an object.
        OSError: It does not exist or cannot be opened.
    """
    check_regular(path)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable_error(path, error) from error
    if not isinstance(known, dict):
        raise _unreadable_error(path, f"it must hold an object, got {_shorten(known)}")
    return known


def _unreadable_error(path: Path, reason: object) -> UsageError:
    return UsageError(f"cannot read {path}: {reason}. Restore it, or choose another --output")


def _compare(folder: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Raise UsageError if the parameters differ."""
    changed = []
    for key in sorted((old.keys() | new.keys()) - {*_FREE, "threads"}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += [f"{k} ({_shorten(before.get(k))}, now {v})" for k, v in after.items() if before.get(k) != v]
        elif before != after:
            changed.append(f"{key} ({_shorten(before)}, now {_shorten(after)})")
    if new.get("threads") not in (None, old.get("threads")):
        changed.append(f"threads ({old.get('threads')}, now {new['threads']})")
    if changed:
        raise UsageError(
            f"{folder} holds maps made with other parameters: {', '.join(changed)}. Restore them, or choose another "
            "--output"
        )


def _check_input(folder: Path, before: object, now: object) -> None:
    """Raise UsageError if the input is another folder and the earlier one still exists; otherwise it has moved."""
    if isinstance(before, str) and isinstance(now, str) and before != now:
        with suppress(OSError, ValueError):
            if not os.path.samefile(before, now):
                raise UsageError(f"{folder} holds the maps of {before}, not of {now}: choose another --output")


def _shorten(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:12] + "..."
