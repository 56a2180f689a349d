"""List the images to explain: all images of a folder, the files of a CSV, or an ImageFolder with one folder per class.

An image's name is its path relative to the root, with `/` between folders: the same on every machine and in every run.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from holistic_cam_plugin.errors import UsageError, check_file
from holistic_cam_plugin.models.classes import find_classes

__all__ = ["Inputs", "Job", "check_input", "find_inputs"]

BOX = ("left", "top", "right", "bottom")
COLUMNS = ("file", "target", "label", "mask", *BOX)
# Similarity, as `difflib` measures it, at which a column counts as a misspelt one.
MISSPELT = 0.8

SUFFIXES = (*IMG_EXTENSIONS, ".gif", ".jfif", ".jp2", ".tga")
# Those that cannot be read fail with a reason instead of being left out without a word.
_PICTURES = (*SUFFIXES, ".avif", ".heic", ".heif")


class Job(NamedTuple):
    """One image to explain."""

    name: str
    targets: tuple[int, ...] = ()  # class indices; empty: the label, or else the predicted class
    problem: str = ""  # why it cannot be explained, if that is known without reading the file
    label: int | None = None  # the true class
    mask: str | None = None  # path of a mask of the object
    boxes: str | None = None  # JSON: [[left, top, right, bottom], ...] in pixels of the picture


class Inputs(NamedTuple):
    """All images, sorted by name."""

    root: Path
    jobs: list[Job]
    unused: tuple[str, ...] = ()  # columns of the CSV without a meaning here


def check_input(source: Path, folder_targets: bool, root: Path | None, output: Path) -> None:
    """Check what can be checked quickly, before a model is loaded.

    Raises:
        UsageError: `source` does not exist, has the wrong type, contains no image, or is the output folder.
    """
    if source.is_dir():
        if output.is_dir() and _identify(source) == _identify(output):
            raise UsageError(f"INPUT and --output are the same folder, {source}: choose another --output")
        if next(_walk(source, output), None) is None:
            raise _no_image_error(source)
        return
    check_file(source)
    if source.suffix.lower() != ".csv" or folder_targets:
        expected = "a folder with one folder per class" if folder_targets else "a folder or a CSV with a column 'file'"
        raise UsageError(f"INPUT must be {expected}, got {source}")
    if root is not None and not root.is_dir():
        raise UsageError(f"--root must be a folder, got {root}")


def find_inputs(
    source: Path, classes: Sequence[str], folder_targets: bool, root: Path | None, skipped: Path | None = None
) -> Inputs:
    """Find the images of a folder, including its subfolders, or those that a CSV lists.

    Args:
        source: A folder, or a CSV with the `COLUMNS`; a file with several rows has several targets or boxes.
        classes: The model's class names by index.
        folder_targets: Whether the folders directly below `source` are the labels (an ImageFolder).
        root: The folder that the CSV's paths are relative to. None: the folder of the CSV.
        skipped: A folder to leave out, such as the output folder.

    Raises:
        UsageError: No image was found, or a class, path or row is invalid.
    """
    if source.is_dir():
        inputs = Inputs(source, sorted(Job(name, (), problem) for name, problem in _walk(source, skipped)))
        if folder_targets:
            inputs = Inputs(source, _assign_folder_classes(inputs.jobs, classes))
    else:
        inputs = _read_csv(source, classes, root or source.parent)
    if not inputs.jobs:
        raise _no_image_error(source)
    return inputs


def _no_image_error(source: Path) -> UsageError:
    return UsageError(f"no image found in {source}; supported file endings: {', '.join(SUFFIXES)}")


def _walk(root: Path, skipped: Path | None) -> Iterator[tuple[str, str]]:
    """Yield the name of every image with an empty problem, and of every unreadable folder with its problem."""
    # Each folder is visited once: links between folders can form exponentially many paths.
    seen = {_identify(skipped)} if skipped is not None and skipped.is_dir() else set()
    waiting, links = [""], deque[str]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        try:
            identity = _identify(root / folder)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(root / folder) as entries:
                found = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)
        except OSError as error:
            if not folder:
                raise UsageError(f"cannot read the folder {root}: {error}") from error
            yield _escape_path(folder), f"cannot read the folder: {error.strerror}"
            continue
        for name, is_folder, is_link in found:
            path = f"{folder}/{name}" if folder else name
            if is_folder:
                (links if is_link else waiting).append(path)
            elif name.lower().endswith(_PICTURES):
                escaped = _escape_path(path)
                yield escaped, "" if escaped == path else "the file name is not valid UTF-8"


def _identify(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it as an image gives the reason
        return False


def _escape_path(path: str) -> str:
    """Replace bytes that are not valid UTF-8, so that the path can be written to any file."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _assign_folder_classes(jobs: Sequence[Job], classes: Sequence[str]) -> list[Job]:
    names = sorted({job.name.split("/")[0] for job in jobs if "/" in job.name})
    known = {name.lower() for name in classes}
    if not all(name.lower() in known for name in names) and len(names) == len(classes):
        indices = dict(zip(names, range(len(names)), strict=True))  # as in torchvision's ImageFolder
    else:
        try:
            indices = dict(zip(names, find_classes(names, classes), strict=True))
        except UsageError as error:
            raise UsageError(
                f"cannot match the {len(names)} folders of INPUT to the model's {len(classes)} classes: {error}"
            ) from error
    return [
        job._replace(label=indices[job.name.split("/")[0]])
        if "/" in job.name
        else job._replace(problem=job.problem or "not inside a class folder")
        for job in jobs
    ]


def _read_csv(path: Path, classes: Sequence[str], root: Path) -> Inputs:
    jobs: dict[str, Job] = {}
    indices: dict[str, int | None] = {"": None}  # of the classes seen so far
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = columns = _check_columns(reader.fieldnames or ())
            for row in reader:
                line = reader.line_num
                name = _normalize_path(row["file"] or "", root)
                jobs[name] = _add_row(jobs.get(name, Job(name)), row, classes, indices)
    except UsageError as error:
        raise UsageError(f"{path}, line {line}: {error}") from error
    except (OSError, ValueError, csv.Error) as error:  # ValueError: a null byte in a path, a number of 5000 digits
        raise UsageError(f"cannot read {path} as a CSV: {error}") from error
    return Inputs(root, sorted(jobs.values()), tuple(column for column in columns if column not in COLUMNS))


def _check_columns(names: Sequence[str]) -> list[str]:
    """Return the names of the columns without spaces around them, known ones in lower case."""
    columns = [name.strip().casefold() if name.strip().casefold() in COLUMNS else name.strip() for name in names]
    for column in set(columns) - set(COLUMNS):
        if near := difflib.get_close_matches(column.casefold(), COLUMNS, 1, MISSPELT):
            raise UsageError(f"the column {column!r} resembles {near[0]!r}: call it that, or something else")
    missing = set(BOX) - set(columns)
    if "file" not in columns or any(columns.count(column) > 1 for column in COLUMNS) or 0 < len(missing) < len(BOX):
        raise UsageError(
            f"there must be a column 'file', none of {', '.join(COLUMNS)} twice, and all of {', '.join(BOX)} or none, "
            f"got: {', '.join(names)[:200] or 'none'}"
        )
    return columns


def _add_row(job: Job, row: Mapping[str, str | None], classes: Sequence[str], indices: dict[str, int | None]) -> Job:
    """Add what the row of a CSV says about an image to what earlier rows said."""
    cells = {column: (row.get(column) or "").strip() for column in COLUMNS}
    for name in {cells["target"], cells["label"]} - indices.keys():
        (indices[name],) = find_classes([name], classes)
    target, label, mask = indices[cells["target"]], indices[cells["label"]], cells["mask"] or None
    if (None not in (job.label, label) and job.label != label) or (job.mask and mask and job.mask != mask):
        raise UsageError(f"{job.name} has another label or mask in an earlier line")
    boxes = json.loads(job.boxes or "[]") + _read_box([cells[side] for side in BOX])
    return job._replace(
        targets=job.targets if target is None or target in job.targets else (*job.targets, target),
        label=job.label if label is None else label,
        mask=job.mask or mask,
        boxes=json.dumps(boxes) if boxes else None,
    )


def _read_box(cells: Sequence[str]) -> list[list[float]]:
    """Return a list of the row's box, which is empty if its cells are."""
    if not any(cells):
        return []
    with suppress(ValueError):
        left, top, right, bottom = box = [float(cell) for cell in cells]
        if -math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf:
            return [box]
    raise UsageError(f"a box needs left < right and top < bottom, in pixels, got {', '.join(cells)}")


def _normalize_path(file: str, root: Path) -> str:
    """Return the file's normalised path relative to the root; raise UsageError if it is not below the root."""
    folder, name = os.path.split(file)
    found = [os.path.normpath(file)]
    if os.path.isabs(file):  # as written, then with links resolved
        resolved = os.path.join(os.path.realpath(folder), name)
        found = [os.path.relpath(file, root.absolute()), os.path.relpath(resolved, root.resolve())]
    for path in found:
        if file and path != "." and Path(path).parts[0] != "..":
            return Path(path).as_posix()
    raise UsageError(f"{file!r} is not a path below {root}; set --root to its folder")
