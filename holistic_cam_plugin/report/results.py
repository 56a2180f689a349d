"""What the records of one or more output folders say about their images."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from holistic_cam_plugin.batch.record import Record, read_record
from holistic_cam_plugin.batch.tables import write_tables
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["Results", "Source", "read_results"]

# Folders with different values are not shown on one page.
_SHARED = ("model", "weights", "classes", "layers", "methods", "sizes", "preprocessing", "crop")


class Source(NamedTuple):
    """An output folder, the folder of its images, and its record."""

    folder: Path
    root: Path
    record: Record


class Results(NamedTuple):
    """The images of all folders, sorted by file: the record's rows with the number of their `source`."""

    sources: list[Source]
    parameters: dict[str, Any]
    preprocessing: Preprocessing
    classes: list[str]
    explained: list[sqlite3.Row]
    failed: list[sqlite3.Row]


def read_results(folders: Sequence[Path], root: Path | None, held: ExitStack) -> Results:
    """Read the records, which stay open, and write the folders' tables; the runs need not be finished.

    A file that several folders of the same images have in common is taken from the first that explains it.

    Raises:
        UsageError: A folder is not an output folder, or the folders were made with different settings.
    """
    found: dict[tuple[Path, str], sqlite3.Row] = {}
    sources: list[Source] = []
    for folder in folders:
        record = held.enter_context(read_record(folder))
        try:
            own = record.parameters
            images = record.connection.execute("SELECT images.*, ? AS source FROM images", (len(sources),)).fetchall()
            preprocessing = Preprocessing.from_json(own["preprocessing"])
            sources.append(Source(folder, root or Path(str(own["input"])), record))
            shared = {key: own[key] for key in _SHARED}
            if os.access(folder, os.W_OK):
                write_tables(folder, record)
        except (sqlite3.Error, LookupError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"the record of {folder} cannot be read: {error!r}") from error
        first = sources[0].record.parameters
        if different := [key for key, value in shared.items() if value != first[key]]:
            raise UsageError(
                f"{folder} and {folders[0]} were made with different settings ({', '.join(different)}): make a report "
                "of each"
            )
        for image in images:
            known = found.get(key := (sources[-1].root, image["file"]))
            if known is None or known["state"] == "failed":
                found[key] = image
    rows = sorted(found.values(), key=lambda image: (image["file"], image["source"]))
    by_state = ([row for row in rows if row["state"] == state] for state in ("explained", "failed"))
    return Results(sources, own, preprocessing, record.classes, *by_state)
