"""What is to be done, and in which batches.

The batches are planned from the list of all images, whoever works on them and whatever is done already. So a map's
bytes depend neither on interruptions nor on the number of ranks.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.overlays import overlay_name
from holistic_cam_plugin.batch.store import map_name

__all__ = ["Plan", "without_clashes"]


class Plan(NamedTuple):
    """What is to be done, the same for all ranks."""

    folder: Path
    inputs: Inputs
    digest: str  # of the parameters
    batch_size: int
    crop: bool
    dtype: str  # of the stored maps
    overlays: bool
    workers: int  # processes that read images, for each rank
    columns: Mapping[str, str]  # of the manifest, the same in every row

    def batches(self, rank: int, world: int) -> Iterator[range]:
        """The rank's batches of job indices: every `world`-th one."""
        for first in range(rank * self.batch_size, len(self.inputs.jobs), world * self.batch_size):
            yield range(first, min(first + self.batch_size, len(self.inputs.jobs)))


def without_clashes(jobs: Sequence[Job], overlays: bool) -> list[Job]:
    """The jobs; where a file of maps would be called like a folder of others, the file's has a problem.

    So it is with `a.png` beside a folder `a.png.npz/`.
    """
    outputs = (map_name, overlay_name) if overlays else (map_name,)
    direct = {posixpath.dirname(output(job.name)) for job in jobs for output in outputs}
    folders = direct | {parent.as_posix() for folder in direct for parent in PurePosixPath(folder).parents}
    return [_without_clash(job, [output(job.name) for output in outputs], folders) for job in jobs]


def _without_clash(job: Job, files: Sequence[str], folders: Collection[str]) -> Job:
    taken = [file.partition("/")[2] for file in files if file in folders]
    return job._replace(problem=f"its maps would be called like the folder {taken[0]}/") if taken else job
