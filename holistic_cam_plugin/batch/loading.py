"""Decoding in DataLoader workers: from a job to the pixels that the model sees, or to the reason why there are none."""

from __future__ import annotations

import os
import signal
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset

from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.classifiers.images import cropped, upright_rgb

__all__ = ["JobImages", "Loaded", "image_loader"]

# Pillow can do more, but some of its formats start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# Of the resized copy, before the crop: a line of 1 x 5000 px would become one of 256 x 1,280,000.
LARGEST_RESIZED = 2**26
# Of a picture that the model sees whole, which needs many times its memory.
LARGEST_WHOLE = 2**24


class Loaded(NamedTuple):
    """One image, read."""

    job: int  # its index
    pixels: NDArray[np.uint8] | None  # the model's input as (H, W, 3), before it is normalised; None: see `problem`
    width: int = 0  # of the file, in pixels
    height: int = 0
    size: int = 0  # of the file, in bytes
    problem: str = ""


class JobImages(Dataset[Any]):
    """The jobs' images by index.

    Args:
        root: folder of the jobs' names.
        jobs: all of them.
        resize: shorter side in pixels to which an image is resized.
        crop: side of the centre crop; None: the whole image.
    """

    def __init__(self, root: Path, jobs: Sequence[Job], resize: int, crop: int | None) -> None:
        self.root, self.jobs, self.resize, self.crop = root, jobs, resize, crop

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Loaded:
        job = self.jobs[index]
        if job.problem:
            return Loaded(index, None, problem=job.problem)
        try:
            return self._read(index, self.root / job.name)
        except Exception as error:  # decoders raise whatever a broken file makes of them, and no file ends the run
            return Loaded(index, None, problem=_reason(error))

    def _read(self, index: int, path: Path) -> Loaded:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")  # to read a pipe is to wait for ever
        if status.st_size == 0:
            raise ValueError("empty file")
        with warnings.catch_warnings():
            # Above Pillow's limit of 89 megapixels it warns, above twice that it refuses: the latter is enough.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            width, height = image.size
            shorter, longer = sorted(image.size)
            if self.resize**2 * longer > (LARGEST_RESIZED if self.crop else LARGEST_WHOLE) * shorter:
                raise ValueError(f"{width} x {height} px: too long and narrow to be resized to {self.resize} px")
            picture = cropped(upright_rgb(image), self.resize, self.crop)
        return Loaded(index, np.asarray(picture), width, height, status.st_size)


def image_loader(images: JobImages, batches: Sequence[Sequence[int]], workers: int) -> DataLoader[Any]:
    """The batches of images in order, read ahead by `workers` processes (0: by this one)."""
    return DataLoader(
        images,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of lists of indices
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_leave_signals_to_the_run,
    )


def _leave_signals_to_the_run(worker: int) -> None:
    # Slurm and Ctrl-C signal every process: the run ends its workers itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _reason(error: Exception) -> str:
    """One line, without the path, which differs from machine to machine."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "no image in a format that is read here"
    return " ".join(f"{error}".split()) or type(error).__name__
