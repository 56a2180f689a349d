"""The main loop: batches of rows go through a `BatchExplainer`, and its rows to the disk and into the record."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from holistic_cam_plugin.batch.ahead import map_ahead
from holistic_cam_plugin.batch.engine import BatchExplainer
from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.outputs import is_intact, map_name, overlay_name
from holistic_cam_plugin.batch.record import Record
from holistic_cam_plugin.errors import convert_write_errors
from holistic_cam_plugin.files import write_whole
from holistic_cam_plugin.methods import Progress
from holistic_cam_plugin.models.pictures import silence_decoders

__all__ = ["PART", "ExplainRows", "Rows", "Tally", "explain_rows", "find_unfinished", "run"]

Rows = Mapping[str, Sequence[Any]]  # columns, as `BatchExplainer` takes and returns them
# Turns batches into rows with maps, in any order, and adds seconds of waiting to a dict, as `explain_rows` does. The
# thread that writes calls what can be called.
ExplainRows = Callable[[BatchExplainer, Iterable[Rows], dict[str, float]], Generator[Rows | Callable[[], Rows]]]

# Batches per reading thread: one being read and one waiting.
BATCHES_AHEAD = 2
# Batches that may wait for a slow disk: their maps are small compared with a pyramid.
WRITES_AHEAD = 16
PART = ".part"  # a run writes one file at a time

_EXPLAINED = """
SELECT images.file, bytes, modified, label, predicted, target FROM images JOIN maps USING (file)
WHERE state = 'explained' ORDER BY images.file, place
"""


class Tally(NamedTuple):
    """Counts and times of a run."""

    explained: int
    failed: int
    seconds: float
    waits: dict[str, float]  # how many of the seconds were spent waiting, by what was waited for
    processor: float  # seconds of CPU time of this process


def explain_rows(
    explainer: BatchExplainer, batches: Iterable[Rows], waits: dict[str, float], workers: int = 1
) -> Generator[Callable[[], Rows]]:
    """Explain batches in this process while threads read the next ones; yield functions that encode the rows.

    Args:
        workers: Threads that read. 0: one, which reads nothing ahead.
    """
    waited = partial(_add, waits, "waiting for data")
    with (
        silence_decoders(),
        closing(map_ahead(explainer.read, batches, max(1, workers), BATCHES_AHEAD * workers, waited)) as read,
    ):
        for items in read:
            yield partial(explainer.encode, explainer.explain(items))


def run(
    explainer: BatchExplainer,
    jobs: Sequence[Job],
    folder: Path,
    record: Record,
    batch_size: int,
    advance: Callable[[int], object],
    explain: ExplainRows = explain_rows,
) -> Tally:
    """Explain the jobs, write their maps into the folder, and add them to the record.

    Args:
        explainer: Its `root` is the folder that the jobs' names are relative to.
        advance: Called after every batch with the number of its images.

    Raises:
        OutputError: The disk is full, the folder is not writable, or the device broke. Finished maps are kept.
        UsageError: A method cannot explain this model, whatever the image.
    """
    start, used, failed = time.perf_counter(), time.process_time(), 0
    waits: dict[str, float] = {}
    for job in jobs:
        if job.problem:
            record.add({"file": job.name, "state": "failed", "reason": job.problem})
            failed += 1
    advance(failed)
    batches = _make_batches([job for job in jobs if not job.problem], batch_size)
    write, waited = partial(_write, folder, record), partial(_add, waits, "waiting for the disk")
    with (
        closing(explain(explainer, batches, waits)) as rows,
        closing(map_ahead(write, rows, 1, WRITES_AHEAD, waited)) as written,
    ):
        for explained in written:
            failed += explained.count(False)
            advance(len(explained))
    processor = time.process_time() - used
    return Tally(len(jobs) - failed, failed, time.perf_counter() - start, waits, processor)


def _add(waits: dict[str, float], name: str, seconds: float) -> None:
    waits[name] = waits.get(name, 0.0) + seconds


def _make_batches(jobs: Sequence[Job], size: int) -> Iterator[Rows]:
    for first in range(0, len(jobs), size):
        some = jobs[first : first + size]
        yield {
            "file": [job.name for job in some],
            "target": [list(job.targets) for job in some],
            "label": [job.label for job in some],
            "mask": [job.mask for job in some],
            "boxes": [job.boxes for job in some],
        }


def _write(folder: Path, record: Record, result: Rows | Callable[[], Rows]) -> list[bool]:
    """Write a batch; return for each image whether it has maps now."""
    rows = result() if callable(result) else result
    return [
        _write_image(folder, record, dict(zip(rows, values, strict=True)))
        for values in zip(*rows.values(), strict=True)
    ]


def _write_image(folder: Path, record: Record, row: Mapping[str, Any]) -> bool:
    """Write an image's overlay and maps, and then its rows, so that no row lacks its maps."""
    with convert_write_errors(folder):
        reason = row["error"] or _write_files(folder, row)
    image = {name: row[name] for name in ("file", "modified", "label", "mask", "boxes")}
    image |= {"bytes": row["bytes_read"], "state": "failed" if reason else "explained", "reason": reason}
    if reason:
        record.add(image)
    else:
        names = ("predicted", "probability", "label_probability", "height", "width")
        record.add(image | {name: row[name] for name in names}, row["maps"])
    return not reason


def _write_files(folder: Path, row: Mapping[str, Any]) -> str:
    """Return why the files cannot be written, if that is due to the image's name."""
    try:
        if row["overlay"]:
            write_whole(folder, overlay_name(row["file"]), [row["overlay"]], PART)
        write_whole(folder, map_name(row["file"]), [row["archive"]], PART)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return "its maps would have the name of a folder of other maps, or be in a folder with the name of other maps"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return "the file name is too long: the maps' names are longer"
    return ""


def find_unfinished(
    inputs: Inputs, folder: Path, record: Record, *, overlays: bool, verify: bool, progress: Progress
) -> list[Job]:
    """Return the jobs whose maps are missing, damaged, of other classes, or of a file that has changed since.

    Args:
        overlays: Whether they need overlays, too.
        verify: Read all archives to see whether they are damaged; otherwise, only their ends.
        progress: A wrapper for the loop over the images in the record.
    """
    rest = {job.name: job for job in inputs.jobs}
    with record.transaction() as connection:
        connection.execute("DELETE FROM images WHERE state = 'failed'")  # every failure is tried again
        regions = ((job.mask, job.boxes, job.name) for job in inputs.jobs)
        connection.executemany("UPDATE images SET mask = ?, boxes = ? WHERE file = ?", regions)
    for file, group in progress(groupby(record.connection.execute(_EXPLAINED), key=lambda row: str(row["file"]))):
        rows, job = list(group), rest.get(file)
        if job is None or job.problem or not _is_current(inputs.root / file, job, rows):
            continue
        files = (map_name(file), overlay_name(file)) if overlays else (map_name(file),)
        if all(is_intact(folder / name, verify) for name in files):
            del rest[file]
    return list(rest.values())


def _is_current(path: Path, job: Job, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rows of an image are of its targets and of the file as it is now."""
    first = rows[0]
    targets = job.targets or (first["predicted"] if job.label is None else job.label,)
    if tuple(dict.fromkeys(row["target"] for row in rows)) != targets or first["label"] != job.label:
        return False
    try:
        status = path.stat()
    except OSError:
        return True  # the maps of a file that is missing are still valid
    return (status.st_size, status.st_mtime_ns) == (first["bytes"], first["modified"])
