"""What a run does, and how the images are divided into batches.

Batches depend on the list of all images alone. So the bytes of a map depend neither on interruptions nor on the number
of ranks.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.overlays import overlay_name
from holistic_cam_plugin.batch.store import map_name

__all__ = ["Plan", "mark_clashes"]


class Plan(NamedTuple):
    """What a run does, the same for all ranks."""

    folder: Path
    inputs: Inputs
    digest: str  # of the parameters
    batch_size: int
    crop: bool
    dtype: str  # of the stored maps
    overlays: bool
    workers: int  # threads per rank that read images
    columns: Mapping[str, str]  # columns of the manifest that are the same in every row

    def batches(self, rank: int, world: int) -> Iterator[range]:
        """Yield the rank's batches of job indices: every `world`-th batch."""
        for first in range(rank * self.batch_size, len(self.inputs.jobs), world * self.batch_size):
            yield range(first, min(first + self.batch_size, len(self.inputs.jobs)))


def mark_clashes(jobs: Sequence[Job], overlays: bool) -> list[Job]:
    """Return the jobs; a job whose output file would have the name of a folder of other outputs gets a problem.

    Example: `a.png` beside a folder `a.png.npz/`.
    """
    outputs = (map_name, overlay_name) if overlays else (map_name,)
    direct = {posixpath.dirname(output(job.name)) for job in jobs for output in outputs}
    folders = direct | {parent.as_posix() for folder in direct for parent in PurePosixPath(folder).parents}
    return [_mark_clash(job, [output(job.name) for output in outputs], folders) for job in jobs]


def _mark_clash(job: Job, files: Sequence[str], folders: Collection[str]) -> Job:
    taken = [file.partition("/")[2] for file in files if file in folders]
    return job._replace(problem=f"its maps would have the name of the folder {taken[0]}/") if taken else job
