"""Read images ahead: from a job to the pixels that the model sees, or to the reason why there are none.

Threads read, not processes: Pillow releases Python's lock while it decodes and resizes, so threads are as fast, and a
run is one process that leaves nothing behind when it is killed. The price: a crash in a decoder's C code ends the run.
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
from holistic_cam_plugin.errors import describe_error
from holistic_cam_plugin.models.images import FORMATS, LARGEST_RESIZED, convert_to_rgb
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["JobImages", "LoadedImage", "read_ahead", "silence_decoders"]

# Pixels of an uncropped image; the model needs many times its memory.
LARGEST_WHOLE = 2**24
# Per reader: one batch being read and one waiting.
BATCHES_AHEAD = 2


class LoadedImage(NamedTuple):
    """An image that was read, or the reason why it could not be."""

    job: int  # its index
    pixels: NDArray[np.uint8] | None  # (H, W, C), the model's input before normalisation; None: see `problem`
    width: int = 0  # of the file, in pixels
    height: int = 0
    size: int = 0  # of the file, in bytes
    problem: str = ""


class JobImages:
    """The images of the jobs by index.

    Args:
        root: The folder that the jobs' names are relative to.
        jobs: All jobs.
        preprocessing: The model's preprocessing.
        crop: False: the whole image is resized instead of cropped.
    """

    def __init__(self, root: Path, jobs: Sequence[Job], preprocessing: Preprocessing, crop: bool) -> None:
        self.root, self.jobs, self.preprocessing, self.crop = root, jobs, preprocessing, crop

    def __getitem__(self, index: int) -> LoadedImage:
        job = self.jobs[index]
        if job.problem:
            return LoadedImage(index, None, problem=job.problem)
        try:
            return self._read(index, self.root / job.name)
        except Exception as error:  # decoders raise errors of any type for a broken file
            return LoadedImage(index, None, problem=_describe(error))

    def read_batch(self, indices: Sequence[int]) -> list[LoadedImage]:
        """Return several images."""
        return [self[index] for index in indices]

    def _read(self, index: int, path: Path) -> LoadedImage:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")  # opening a FIFO would block
        if status.st_size == 0:
            raise ValueError("empty file")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if self.preprocessing.resized_area(width, height) > (LARGEST_RESIZED if self.crop else LARGEST_WHOLE):
                resize = self.preprocessing.resize
                raise ValueError(f"{width} x {height} px: too long and narrow to be resized to {resize} px")
            pixels = self.preprocessing.to_pixels(convert_to_rgb(image), crop=self.crop)
        return LoadedImage(index, pixels, width, height, status.st_size)


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Ignore Pillow's warnings, in the whole process: such a file is either read or listed with a reason."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def read_ahead(images: JobImages, batches: Iterable[Sequence[int]], readers: int) -> Generator[list[LoadedImage]]:
    """Yield the batches in order, read ahead by `readers` threads; 0: by the calling thread, when they are needed.

    Close the generator: until then Pillow's warnings are off, in the whole process.
    """
    with silence_decoders():
        if readers == 0:
            yield from map(images.read_batch, batches)
            return
        pool = ThreadPoolExecutor(readers)
        try:
            ahead: deque[Future[list[LoadedImage]]] = deque()
            for batch in batches:
                ahead.append(pool.submit(images.read_batch, batch))
                if len(ahead) > BATCHES_AHEAD * readers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _describe(error: Exception) -> str:
    """Describe the error in one line, without the path, which differs between machines."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a supported format"
    return describe_error(error)
