"""The main loop: read, explain and write one planned batch after the other.

If maps of a batch are missing, the whole batch is read and explained again, and only the missing maps are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from holistic_cam_plugin.batch.failures import RobustExplainer
from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.batch.loading import JobImages, LoadedImage, read_ahead
from holistic_cam_plugin.batch.manifest import MANIFEST, read_records
from holistic_cam_plugin.batch.overlays import overlay_name
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.store import hash_file, map_name
from holistic_cam_plugin.batch.writing import Writer
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.methods import Progress

__all__ = ["Tally", "find_unfinished", "run"]


class Tally(NamedTuple):
    """Counts and times of one rank's run."""

    explained: int
    failed: int
    kept: int  # finished by an earlier run
    seconds: float
    waits: dict[str, float]  # how many of the seconds were spent waiting, by what was waited for
    processor: float  # seconds of CPU time


def find_unfinished(plan: Plan, request: Request, rank: int, world: int, progress: Progress) -> list[int]:
    """Return the rank's jobs whose maps are missing or differ from those that the manifest lists."""
    rest = {plan.inputs.jobs[index].name: index for batch in plan.batches(rank, world) for index in batch}
    for rows in progress(read_records(plan.folder, MANIFEST)):
        index = rest.get(rows[0]["file"])
        if index is not None and _is_finished(plan, plan.inputs.jobs[index], request, rows):
            del rest[rows[0]["file"]]
    return list(rest.values())


def run(
    plan: Plan, request: Request, rank: int, world: int, unfinished: Sequence[int], advance: Callable[[int], object]
) -> Tally:
    """Explain the rank's unfinished jobs.

    Args:
        advance: Called after every batch with the number of jobs that it finished.

    Raises:
        OutputError: The disk is full, the folder is not writable, or the device broke. Finished maps are kept.
        UsageError: A method cannot explain this model, whatever the image.
    """
    missing, classifier = set(unfinished), request.classifier
    batches = [batch for batch in plan.batches(rank, world) if not missing.isdisjoint(batch)]
    images = JobImages(plan.inputs.root, plan.inputs.jobs, classifier.preprocessing, plan.crop)
    robust = RobustExplainer(request)
    start, used, waited = time.perf_counter(), time.process_time(), 0.0
    reading = read_ahead(images, batches, plan.workers)
    with Writer(plan, classifier.classes, rank) as writer, closing(reading):
        while True:
            asked = time.perf_counter()
            loaded = next(reading, None)
            waited += time.perf_counter() - asked
            if loaded is None:
                break
            advance(_process(loaded, missing, plan, robust, writer))
    kept = sum(map(len, plan.batches(rank, world))) - len(unfinished)
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    waits = {"waiting for data": waited, "waiting for the disk": writer.waited}
    return Tally(len(unfinished) - writer.failed, writer.failed, kept, seconds, waits, processor)


def _process(
    loaded: Sequence[LoadedImage], missing: set[int], plan: Plan, robust: RobustExplainer, writer: Writer
) -> int:
    """Explain a batch and write its missing maps; return how many jobs were missing."""
    wanted = [image for image in loaded if image.job in missing]
    for image in wanted:
        if image.problem:
            writer.write(image, image.problem)
    if any(image.pixels is not None for image in wanted):
        for group in _group_by_size(loaded):
            pixels = torch.from_numpy(np.stack([image.pixels for image in group if image.pixels is not None]))
            results = robust.explain(pixels, [plan.inputs.jobs[image.job].targets for image in group])
            for image, result in zip(group, results, strict=True):
                if image.job in missing:
                    writer.write(image, result)
    return len(wanted)


def _group_by_size(loaded: Sequence[LoadedImage]) -> list[list[LoadedImage]]:
    """Group the readable images by the shape of their pixels."""
    groups: dict[tuple[int, ...], list[LoadedImage]] = {}
    for image in loaded:
        if image.pixels is not None:
            groups.setdefault(image.pixels.shape, []).append(image)
    return list(groups.values())


def _is_finished(plan: Plan, job: Job, request: Request, rows: Sequence[Mapping[str, str]]) -> bool:
    first = rows[0]
    targets = job.targets or (int(first["predicted"]),)
    expected = [
        (method.key, layer, str(target)) for method in request.methods for layer in request.layers for target in targets
    ]
    if [(row["method"], row["layer"], row["target"]) for row in rows] != expected or first["parameters"] != plan.digest:
        return False
    if plan.overlays and not _matches(plan.folder / overlay_name(job.name), first["overlay_checksum"]):
        return False
    return _read_size(plan.inputs.root / job.name) in (None, int(first["bytes"])) and _matches(
        plan.folder / map_name(job.name), first["checksum"]
    )


def _matches(path: Path, checksum: str) -> bool:
    return checksum != "" and hash_file(path) == checksum


def _read_size(path: Path) -> int | None:
    """Return the size in bytes, or None for a missing file: its maps are still valid."""
    try:
        return path.stat().st_size
    except OSError:
        return None
