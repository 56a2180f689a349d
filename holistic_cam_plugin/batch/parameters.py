"""The output folder's parameters: written once, compared at every restart, so that two runs never mix."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path

from torch import nn

from holistic_cam_plugin.batch.lock import locked
from holistic_cam_plugin.batch.store import write_whole
from holistic_cam_plugin.errors import UsageError, check_regular

__all__ = [
    "PARAMETERS",
    "claimed",
    "digest",
    "most_threads",
    "package_versions",
    "read_parameters",
    "weights_checksum",
]

PARAMETERS = "parameters.json"

# What the maps' values depend on: the method, the model's operations, and how a file becomes pixels.
PACKAGES = ("holistic-cam-plugin", "grad-cam", "torch", "torchvision", "numpy", "opencv-python-headless", "Pillow")
# By the form of the model's name, where it comes from another library.
LIBRARIES = {"timm/": "timm", "hf/": "transformers"}
# Told for the reader's sake: the images may lie elsewhere today.
_FREE = ("input",)


def package_versions(model: str | None = None) -> dict[str, str]:
    """The versions of what the maps of this model depend on; a package that runs uninstalled has none."""
    versions = {}
    for package in (*PACKAGES, *(library for prefix, library in LIBRARIES.items() if f"{model}".startswith(prefix))):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def weights_checksum(model: nn.Module) -> str:
    """SHA-256 of the model's parameters and buffers with their names, in hexadecimal."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def most_threads() -> int:
    """More PyTorch threads than this make no sense here, and some systems don't survive the try.

    A folder of a larger machine can be gone on with.
    """
    return max(256, 4 * (os.cpu_count() or 1))


def digest(parameters: Mapping[str, object]) -> str:
    """Twelve hexadecimal digits that stand for the parameters that the maps depend on."""
    compared = {key: value for key, value in parameters.items() if key not in _FREE}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def claimed(folder: Path, parameters: Mapping[str, object], threads: int) -> Iterator[dict[str, object]]:
    """The folder as this run's own: locked until the body ends, or the process, however it ends.

    Args:
        folder: made if need be; empty, or of a run with the same parameters.
        parameters: what the maps depend on, as JSON takes it. Where `threads` is None, those of the folder hold.
        threads: for a new folder, where the parameters have none.

    Yields:
        The folder's parameters.

    Raises:
        UsageError: other parameters, files of something else, another run at work, or no permission.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = {child.name for child in folder.iterdir()}
            if PARAMETERS not in names and any(not name.startswith(".") for name in names):
                raise UsageError(f"{folder} holds files, but no {PARAMETERS}: choose an empty or new --output")
            held.enter_context(locked(folder, ", or choose another --output"))
            known = _agreed(folder, parameters, threads)
        except OSError as error:
            raise UsageError(f"the output folder {folder} can't be used: {error}") from error
        yield known


def _agreed(folder: Path, parameters: Mapping[str, object], threads: int) -> dict[str, object]:
    """The parameters of this run with the folder's threads; the folder's file holds just them afterwards."""
    path = folder / PARAMETERS
    agreed = {**parameters, "threads": parameters["threads"] or threads}
    if path.exists():
        known = read_parameters(path)
        _check_threads(path, known.get("threads"))
        _compare(folder, known, parameters)
        _check_input(folder, known.get("input"), parameters.get("input"))
        agreed["threads"] = known["threads"]
    data = (json.dumps(agreed, indent=2) + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        write_whole(folder, PARAMETERS, [data])
    return agreed


def read_parameters(path: Path) -> dict[str, object]:
    """What a `parameters.json` holds.

    Raises:
        UsageError: no JSON, or no parameters.
        OSError: no such file, or no permission.
    """
    check_regular(path)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(known, dict):
        raise _unreadable(path, f"it holds {_short(known)}, no parameters")
    return known


def _check_threads(path: Path, threads: object) -> None:
    """Raise UsageError for threads that no run had."""
    if type(threads) is not int or not 1 <= threads <= most_threads():
        raise _unreadable(path, f"threads is {_short(threads)}, not 1 to {most_threads()}")


def _unreadable(path: Path, why: object) -> UsageError:
    return UsageError(f"{path} can't be read: {why}. Restore it, or choose another --output")


def _compare(folder: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    changed = []
    for key in sorted((old.keys() | new.keys()) - {*_FREE, "threads"}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += [f"{k} ({_short(before.get(k))}, now {v})" for k, v in after.items() if before.get(k) != v]
        elif before != after:
            changed.append(f"{key} ({_short(before)}, now {_short(after)})")
    if new.get("threads") not in (None, old.get("threads")):
        changed.append(f"threads ({old.get('threads')}, now {new['threads']})")
    if changed:
        raise UsageError(
            f"{folder} holds maps made with other parameters: {', '.join(changed)}. Restore them, or choose another "
            "--output"
        )


def _check_input(folder: Path, before: object, now: object) -> None:
    """Raise UsageError if the images are others; where the earlier ones are gone, they have moved."""
    if isinstance(before, str) and isinstance(now, str) and before != now:
        with suppress(OSError, ValueError):
            if not os.path.samefile(before, now):
                raise UsageError(f"{folder} has the maps of {before}, not of {now}: choose another --output")


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:12] + "..."
