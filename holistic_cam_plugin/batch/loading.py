"""Load pictures, from a file or its bytes to the pixels that the model sees, or to the reason why there are none.

Threads load, not processes: Pillow releases Python's lock while it decodes and resizes, so threads are as fast, and a
run is one process that leaves nothing behind when it is killed. The price: a crash in a decoder's C code ends the run.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from holistic_cam_plugin.errors import describe_error
from holistic_cam_plugin.models.images import FORMATS, LARGEST_RESIZED, convert_to_rgb
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["Picture", "load_picture", "map_ahead", "silence_decoders"]

# Pixels of an uncropped image; the model needs many times its memory.
LARGEST_WHOLE = 2**24

T = TypeVar("T")
R = TypeVar("R")


class Picture(NamedTuple):
    """A picture that was loaded, or the reason why it could not be."""

    pixels: NDArray[np.uint8] | None  # (H, W, C), the model's input before normalisation; None: see `problem`
    size: int | None = None  # of the file, in bytes
    modified: int | None = None  # the file's time of modification, in nanoseconds
    problem: str = ""


def load_picture(source: Path | bytes, preprocessing: Preprocessing, crop: bool = True) -> Picture:
    """Load a picture from its file or its encoded bytes; never raises an Exception.

    Args:
        preprocessing: The model's.
        crop: False: the whole image is resized instead of cropped.
    """
    size = len(source) if isinstance(source, bytes) else None
    modified = None
    try:
        if isinstance(source, Path):
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a regular file")  # opening a FIFO would block
            size, modified = status.st_size, status.st_mtime_ns
        if size == 0:
            raise ValueError("empty file")
        return Picture(_read_pixels(source, preprocessing, crop), size, modified)
    except UnidentifiedImageError:
        return Picture(None, size, modified, "not an image in a supported format")
    except Exception as error:  # decoders raise errors of any type for a broken file
        return Picture(None, size, modified, describe_error(error))  # without the path, which differs between machines


def _read_pixels(source: Path | bytes, preprocessing: Preprocessing, crop: bool) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        width, height = image.size
        if preprocessing.resized_area(width, height) > (LARGEST_RESIZED if crop else LARGEST_WHOLE):
            raise ValueError(f"{width} x {height} px: too long and narrow to be resized to {preprocessing.resize} px")
        return preprocessing.to_pixels(convert_to_rgb(image), crop=crop)


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Ignore Pillow's warnings, in the whole process: such a file is either read or listed with a reason."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def map_ahead(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Generator[R]:
    """Yield the function's results in order, computed by threads, at most `ahead` items before they are needed.

    The items themselves are taken by the calling thread. Without threads it calls the function, too.
    """
    if threads == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
