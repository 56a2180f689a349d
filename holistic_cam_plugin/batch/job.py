"""The loop: read, explain, write, one planned batch after the other.

A batch of which something is missing is read and explained as it was planned, and what is missing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from holistic_cam_plugin.batch.explaining import Explainer, Explanation
from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.batch.loading import JobImages, Loaded, read_ahead
from holistic_cam_plugin.batch.manifest import MANIFEST, recorded
from holistic_cam_plugin.batch.overlays import overlay_name
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.refusals import Trials
from holistic_cam_plugin.batch.store import file_checksum, map_name
from holistic_cam_plugin.batch.writing import Writer
from holistic_cam_plugin.passes.clock import clocked

__all__ = ["Tally", "run", "unfinished"]


DATA, DISK = "waiting for data", "waiting for the disk"


class Tally(NamedTuple):
    """One rank's run in figures."""

    explained: int
    failed: int
    kept: int  # done by an earlier run
    seconds: float
    stages: dict[str, float]  # seconds of them by what they were spent on
    processor: float  # seconds of CPU time


def unfinished(
    plan: Plan, explainer: Explainer, rank: int, world: int, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> list[int]:
    """Those of the rank's jobs whose maps are missing, or not those that the manifest lists."""
    rest = {plan.inputs.jobs[index].name: index for batch in plan.batches(rank, world) for index in batch}
    for rows in progress(recorded(plan.folder, MANIFEST)):
        index = rest.get(rows[0]["file"])
        if index is not None and _is_done(plan, plan.inputs.jobs[index], explainer, rows):
            del rest[rows[0]["file"]]
    return list(rest.values())


def run(
    plan: Plan, explainer: Explainer, rank: int, world: int, todo: Sequence[int], progress: Callable[[int], object]
) -> Tally:
    """Explain the rank's jobs `todo`.

    Args:
        progress: is told after every batch how many of them were dealt with.

    Raises:
        OutputError: no room, no permission, no device. What is done stays.
        UsageError: a method can't explain this model, whatever the image.
    """
    missing = set(todo)
    batches = [batch for batch in plan.batches(rank, world) if not missing.isdisjoint(batch)]
    classifier = explainer.classifier
    images = JobImages(plan.inputs.root, plan.inputs.jobs, classifier.preprocessing, plan.crop)
    trials = Trials(explainer)
    start, used = time.perf_counter(), time.process_time()
    reading = read_ahead(images, batches, plan.workers)
    with clocked() as stages, Writer(plan, explainer, rank) as writer, closing(reading):
        for loaded in _timed(reading, stages):
            wanted = [one for one in loaded if one.job in missing]
            for one in wanted:
                if one.problem:
                    writer.store(one, one.problem)
            if any(one.pixels is not None for one in wanted):
                for same in _by_size(loaded):
                    for one, result in zip(same, _explained(plan, trials, same), strict=True):
                        if one.job in missing:
                            writer.store(one, result)
            progress(len(wanted))
    kept = sum(map(len, plan.batches(rank, world))) - len(todo)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    stages[DISK] = writer.waiting
    return Tally(len(todo) - writer.failed, writer.failed, kept, seconds, dict(stages), processor)


def _is_done(plan: Plan, job: Job, explainer: Explainer, rows: Sequence[Mapping[str, str]]) -> bool:
    first = rows[0]
    targets = job.targets or (int(first["predicted"]),)
    expected = [
        (method, layer, str(target)) for method in explainer.methods for layer in explainer.layers for target in targets
    ]
    if [(row["method"], row["layer"], row["target"]) for row in rows] != expected or first["parameters"] != plan.digest:
        return False
    if plan.overlays and not _holds(plan.folder / overlay_name(job.name), first["overlay_checksum"]):
        return False
    return _size(plan.inputs.root / job.name) in (None, int(first["bytes"])) and _holds(
        plan.folder / map_name(job.name), first["checksum"]
    )


def _holds(path: Path, checksum: str) -> bool:
    return checksum != "" and file_checksum(path) == checksum


def _size(path: Path) -> int | None:
    """In bytes; None where the file is gone, which is no reason to doubt its map."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _explained(plan: Plan, trials: Trials, images: Sequence[Loaded]) -> list[Explanation | str]:
    pixels = torch.from_numpy(np.stack([one.pixels for one in images if one.pixels is not None]))
    return trials.explained(pixels, [plan.inputs.jobs[one.job].targets for one in images])


def _by_size(loaded: Sequence[Loaded]) -> list[list[Loaded]]:
    """The images that could be read, those of one size together."""
    groups: dict[tuple[int, ...], list[Loaded]] = {}
    for one in loaded:
        if one.pixels is not None:
            groups.setdefault(one.pixels.shape, []).append(one)
    return list(groups.values())


def _timed(batches: Iterable[list[Loaded]], stages: dict[str, float]) -> Iterator[list[Loaded]]:
    """The batches; the seconds that they are waited for are added to the stages."""
    start = time.perf_counter()
    for loaded in batches:
        stages[DATA] += time.perf_counter() - start
        yield loaded
        start = time.perf_counter()
