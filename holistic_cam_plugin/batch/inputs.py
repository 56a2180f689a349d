"""What to explain: a folder, a CSV of files with targets, or a folder of classes becomes a list of jobs.

A job's name is its path below the root, with `/` between folders: the same on every machine and in every restart.
"""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from holistic_cam_plugin.classifiers.classes import class_indices
from holistic_cam_plugin.errors import UsageError, check_file

__all__ = ["Inputs", "Job", "check_input", "find_inputs"]

SUFFIXES = (*IMG_EXTENSIONS, ".gif", ".jfif", ".jp2", ".tga")


class Job(NamedTuple):
    """One image."""

    name: str
    targets: tuple[int, ...] = ()  # classes to explain; none: the predicted one
    problem: str = ""  # why it can't be explained, where that is known without reading it


class Inputs(NamedTuple):
    """All the images, sorted by name."""

    root: Path
    jobs: list[Job]


def check_input(source: Path, folder_targets: bool, root: Path | None, output: Path) -> None:
    """What can be told before a model is there, in a moment.

    Raises:
        UsageError: no such source, or not of that kind; a folder without images, or the one where the output goes.
    """
    if source.is_dir():
        if output.is_dir() and _identity(source) == _identity(output):
            raise UsageError(f"INPUT and --output are the same folder, {source}: choose another --output")
        if next(_walk(source, output), None) is None:
            raise _no_image(source)
        return
    check_file(source)
    if source.suffix.lower() != ".csv" or folder_targets:
        wanted = "a folder of class folders" if folder_targets else "a folder, or a CSV with the column file"
        raise UsageError(f"INPUT must be {wanted}, got {source}")
    if root is not None and not root.is_dir():
        raise UsageError(f"--root must be a folder, got {root}")


def find_inputs(
    source: Path, classes: Sequence[str], folder_targets: bool, root: Path | None, skipped: Path | None = None
) -> Inputs:
    """The images of a folder, all its folders included, or of a CSV.

    Args:
        source: a folder, or a CSV with the columns `file` and, if wanted, `target`: a class index or name, empty for
            the predicted class. A file with several rows has several targets.
        classes: the model's class names by index.
        folder_targets: the folders right below `source` are the classes to explain (an ImageFolder).
        root: the folder below which the CSV's files are; None: the CSV's own.
        skipped: a folder not to look into, where the output goes.

    Raises:
        UsageError: no image, or a class, path or row that can't be meant.
    """
    if source.is_dir():
        inputs = Inputs(source, sorted(Job(name, (), problem) for name, problem in _walk(source, skipped)))
        if folder_targets:
            inputs = Inputs(source, _with_folder_classes(inputs.jobs, classes))
    else:
        inputs = _csv_inputs(source, classes, root or source.parent)
    if not inputs.jobs:
        raise _no_image(source)
    return inputs


def _no_image(source: Path) -> UsageError:
    return UsageError(f"{source} holds no image; files ending in {', '.join(SUFFIXES)} are looked for")


def _walk(root: Path, skipped: Path | None) -> Iterator[tuple[str, str]]:
    """Names of image files and of folders that can't be read, the latter with the reason."""
    # Each folder once, whatever links to it: links to one another have more ways round than anybody has time for.
    seen = {_identity(skipped)} if skipped is not None and skipped.is_dir() else set()
    waiting, links = [""], deque[str]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        try:
            identity = _identity(root / folder)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(root / folder) as entries:
                found = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)
        except OSError as error:
            if not folder:
                raise UsageError(f"the folder {root} can't be read: {error}") from error
            yield _spelled(folder), f"folder can't be read: {error.strerror}"
            continue
        for name, is_folder, is_link in found:
            path = f"{folder}/{name}" if folder else name
            if is_folder:
                (links if is_link else waiting).append(path)
            elif name.lower().endswith(SUFFIXES):
                spelled = _spelled(path)
                yield spelled, "" if spelled == path else "file name is no valid UTF-8"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will say so
        return False


def _spelled(path: str) -> str:
    """The path as text that can be written anywhere."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _with_folder_classes(jobs: Sequence[Job], classes: Sequence[str]) -> list[Job]:
    names = sorted({job.name.split("/")[0] for job in jobs if "/" in job.name})
    known = {name.lower() for name in classes}
    if not all(name.lower() in known for name in names) and len(names) == len(classes):
        indices = dict(zip(names, range(len(names)), strict=True))  # as torchvision's ImageFolder counts them
    else:
        try:
            indices = dict(zip(names, class_indices(names, classes), strict=True))
        except UsageError as error:
            raise UsageError(
                f"the {len(names)} folders of INPUT are neither the {len(classes)} classes of the model nor named "
                f"like some of them: {error}"
            ) from error
    stray = "lies in no class folder"
    return [
        job._replace(targets=(indices[job.name.split("/")[0]],))
        if "/" in job.name
        else job._replace(problem=job.problem or stray)
        for job in jobs
    ]


def _csv_inputs(path: Path, classes: Sequence[str], root: Path) -> Inputs:
    targets: dict[str, list[int]] = {}
    indices: dict[str, int] = {}  # of the classes met so far
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            named = ", ".join(columns)[:200] or "none"
            if "file" not in columns:
                raise UsageError(f"{path} has no column called file, but {named}")
            if columns.count("file") > 1 or columns.count("target") > 1:
                raise UsageError(f"{path} has two columns of one name: {named}")
            for row in reader:
                known = targets.setdefault(_csv_name(path, reader.line_num, row["file"] or "", root), [])
                target = (row.get("target") or "").strip()
                if not target:
                    continue
                if target not in indices:
                    try:
                        indices[target] = class_indices([target], classes)[0]
                    except UsageError as error:
                        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
                if indices[target] not in known:
                    known.append(indices[target])
    except (OSError, ValueError, csv.Error) as error:  # a path with a null byte, a number of 5000 digits
        raise UsageError(f"{path} can't be read as a CSV: {error}") from error
    return Inputs(root, sorted(Job(name, tuple(some)) for name, some in targets.items()))


def _csv_name(path: Path, line: int, file: str, root: Path) -> str:
    """The file's name below the root, normalised; an absolute path must lie below it."""
    name = next(filter(_is_below, _relative(file, root)), None) if file else None
    if name is None:
        raise UsageError(f"{path}, line {line}: {file!r} is no file below {root}: name another folder with --root")
    return PurePosixPath(Path(name)).as_posix()


def _relative(file: str, root: Path) -> Iterator[str]:
    """What the file may be called below the root: as it is written, or where links really lead."""
    if not os.path.isabs(file):
        yield os.path.normpath(file)
        return
    yield os.path.relpath(file, root.absolute())
    folder, name = os.path.split(file)
    yield os.path.relpath(os.path.join(os.path.realpath(folder), name), root.resolve())


def _is_below(name: str) -> bool:
    return name != "." and Path(name).parts[0] != ".."
