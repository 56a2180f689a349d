"""What the records of one or more output folders say about each image."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holistic_cam_plugin.batch.record import read_record
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["MapRow", "MapRows", "Result", "Results", "read_maps", "read_results"]

# Folders with different values are not shown on one page.
_SHARED = ("model", "weights", "layers", "methods", "sizes", "text", "crop", "preprocessing")


class MapRow(NamedTuple):
    """One map of an image, as in the record."""

    method: str
    layer: str
    target: int
    name: str  # of the target
    score: float
    probability: float
    coverage: float
    seconds: float


class Result(NamedTuple):
    """One image, as in the record."""

    folder: Path  # the output folder
    root: Path  # of the images
    file: str
    bytes: int | None
    modified: int | None
    state: str
    reason: str
    label: int | None
    predicted: int | None
    probability: float | None
    label_probability: float | None
    height: int | None
    width: int | None
    mask: str | None
    boxes: str | None


MapRows = dict[tuple[Path, str], list[MapRow]]  # by output folder and file

_MAP_COLUMNS = "method, layer, target, class, score, probability, coverage, seconds"
_IMAGE_COLUMNS = ", ".join(Result._fields[2:])


class Results(NamedTuple):
    """All images of the output folders, sorted by file, and what holds for all of them."""

    parameters: dict[str, Any]
    preprocessing: Preprocessing
    classes: list[str]
    explained: list[Result]
    failed: list[Result]


def read_results(folders: Sequence[Path]) -> Results:
    """Read the records of output folders; their runs need not be finished.

    A file that several folders of the same images have in common is taken from the first that explains it.

    Raises:
        UsageError: A folder is not an output folder, or the folders were made with different settings.
    """
    parameters: dict[str, Any] = {}
    classes: list[str] = []
    found: dict[tuple[str, str], Result] = {}
    for folder in folders:
        own, names, images = _read_folder(folder)
        if different := [key for key in _SHARED if parameters and own.get(key) != parameters.get(key)]:
            raise UsageError(
                f"{folder} and {folders[0]} were made with different settings ({', '.join(different)}): make a report "
                "of each"
            )
        parameters, classes = parameters or own, classes or names
        for image in images:
            known = found.get(key := (str(image.root), image.file))
            if known is None or known.state == "failed":
                found[key] = image
    results = sorted(found.values(), key=lambda image: (image.file, str(image.root)))
    return Results(
        parameters,
        Preprocessing.from_json(parameters["preprocessing"]),
        classes,
        [image for image in results if image.state == "explained"],
        [image for image in results if image.state == "failed"],
    )


def read_maps(images: Iterable[Result]) -> MapRows:
    """Read the rows of the images' maps."""
    wanted: dict[Path, set[str]] = {}
    for image in images:
        wanted.setdefault(image.folder, set()).add(image.file)
    rows: MapRows = {}
    for folder, files in wanted.items():
        with read_record(folder) as record:
            for file, *values in record.connection.execute(
                f"SELECT file, {_MAP_COLUMNS} FROM maps ORDER BY file, place"
            ):
                if file in files:
                    rows.setdefault((folder, file), []).append(MapRow(*values))
    return rows


def _read_folder(folder: Path) -> tuple[dict[str, Any], list[str], list[Result]]:
    try:
        with read_record(folder) as record:
            parameters, classes = record.parameters, record.classes
            Preprocessing.from_json(parameters["preprocessing"])
            root, _ = Path(str(parameters["input"])), parameters["crop"]
            rows = record.connection.execute(f"SELECT {_IMAGE_COLUMNS} FROM images")
            return parameters, classes, [Result(folder, root, *row) for row in rows]
    except (sqlite3.Error, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the record of {folder} cannot be read: {error!r}") from error
