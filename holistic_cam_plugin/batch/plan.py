"""What is to be done, and in which batches.

The batches are planned from the list of all images, whoever works on them and whatever is done already. So a map's
bytes depend neither on interruptions nor on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from holistic_cam_plugin.batch.inputs import Inputs

__all__ = ["Plan"]


class Plan(NamedTuple):
    """What is to be done, the same for all ranks."""

    folder: Path
    inputs: Inputs
    digest: str  # of the parameters
    batch_size: int
    crop: bool
    dtype: str  # of the stored maps
    overlays: bool
    workers: int  # threads that read images, for each rank
    columns: Mapping[str, str]  # of the manifest, the same in every row

    def batches(self, rank: int, world: int) -> Iterator[range]:
        """The rank's batches of job indices: every `world`-th one."""
        for first in range(rank * self.batch_size, len(self.inputs.jobs), world * self.batch_size):
            yield range(first, min(first + self.batch_size, len(self.inputs.jobs)))
