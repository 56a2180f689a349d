"""Reading ahead: from a job to the pixels that the model sees, or to the reason why there are none.

Threads read, not processes. Pillow decodes and resizes without Python's lock, so they are as fast; and a run is one
process, of which a kill leaves nothing behind. The price: a crash in a decoder's C code ends the run, as a kill would.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.classifiers.images import FORMATS, LARGEST_RESIZED, upright_rgb
from holistic_cam_plugin.classifiers.preprocessing import Preprocessing

__all__ = ["JobImages", "Loaded", "quiet_decoders", "read_ahead"]

# Of a picture that the model sees whole, which needs many times its memory.
LARGEST_WHOLE = 2**24
# So many for each reader: one that is read, and one that waits.
BATCHES_AHEAD = 2


class Loaded(NamedTuple):
    """One image, read."""

    job: int  # its index
    pixels: NDArray[np.uint8] | None  # the model's input as (H, W, C), before it is normalised; None: see `problem`
    width: int = 0  # of the file, in pixels
    height: int = 0
    size: int = 0  # of the file, in bytes
    problem: str = ""


class JobImages:
    """The jobs' images by index.

    Args:
        root: folder of the jobs' names.
        jobs: all of them.
        preprocessing: the model's.
        crop: False: the whole image, resized.
    """

    def __init__(self, root: Path, jobs: Sequence[Job], preprocessing: Preprocessing, crop: bool) -> None:
        self.root, self.jobs, self.preprocessing, self.crop = root, jobs, preprocessing, crop

    def __getitem__(self, index: int) -> Loaded:
        job = self.jobs[index]
        if job.problem:
            return Loaded(index, None, problem=job.problem)
        try:
            return self._read(index, self.root / job.name)
        except Exception as error:  # decoders raise whatever a broken file makes of them, and no file ends the run
            return Loaded(index, None, problem=_reason(error))

    def batch(self, indices: Sequence[int]) -> list[Loaded]:
        """Several of them."""
        return [self[index] for index in indices]

    def _read(self, index: int, path: Path) -> Loaded:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")  # to read a pipe is to wait for ever
        if status.st_size == 0:
            raise ValueError("empty file")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if self.preprocessing.resized_area(width, height) > (LARGEST_RESIZED if self.crop else LARGEST_WHOLE):
                resize = self.preprocessing.resize
                raise ValueError(f"{width} x {height} px: too long and narrow to be resized to {resize} px")
            pixels = self.preprocessing.pixels(upright_rgb(image), crop=self.crop)
        return Loaded(index, pixels, width, height, status.st_size)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Without Pillow's warnings, in the whole process: a file of which it warns is read all the same, or refused."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def read_ahead(images: JobImages, batches: Iterable[Sequence[int]], readers: int) -> Generator[list[Loaded]]:
    """The batches of images in order, read ahead by so many threads (0: by this one, when their turn comes).

    Close it: meanwhile Pillow's warnings are off, in the whole process.
    """
    with quiet_decoders():
        if readers == 0:
            yield from map(images.batch, batches)
            return
        pool = ThreadPoolExecutor(readers)
        try:
            ahead: deque[Future[list[Loaded]]] = deque()
            for batch in batches:
                ahead.append(pool.submit(images.batch, batch))
                if len(ahead) > BATCHES_AHEAD * readers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _reason(error: Exception) -> str:
    """One line, without the path, which differs from machine to machine."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "no image in a format that is read here"
    return " ".join(f"{error}".split()) or type(error).__name__
