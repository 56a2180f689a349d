"""Pictures from files or bytes as the pixels that a model sees, or the reason why there are none."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.errors import describe_error
from holistic_cam_plugin.models.images import LARGEST_RESIZED, convert_to_rgb, open_image
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["Picture", "load_picture", "silence_decoders"]

# Pixels of an uncropped image; the model needs many times its memory.
LARGEST_WHOLE = 2**24


class Picture(NamedTuple):
    """A picture that was loaded, or the reason why it could not be."""

    pixels: NDArray[np.uint8] | None  # (H, W, C), the model's input before normalisation; None: see `problem`
    size: int | None = None  # of the file, in bytes
    modified: int | None = None  # the file's time of modification, in nanoseconds
    problem: str = ""


def load_picture(source: Path | bytes, preprocessing: Preprocessing, crop: bool) -> Picture:
    """Load a picture from its file or its encoded bytes, cropped or as a whole; never raises an Exception."""
    size, modified = (len(source) if isinstance(source, bytes) else None), None
    try:
        if isinstance(source, Path):
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a regular file")  # opening a FIFO would block
            size, modified = status.st_size, status.st_mtime_ns
        if size == 0:
            raise ValueError("empty file")
        with open_image(source) as image:
            if preprocessing.resized_area(*image.size) > (LARGEST_RESIZED if crop else LARGEST_WHOLE):
                sides = " x ".join(map(str, image.size))
                raise ValueError(f"{sides} px: too long and narrow to be resized to {preprocessing.resize} px")
            return Picture(preprocessing.to_pixels(convert_to_rgb(image), crop=crop), size, modified)
    except Exception as error:  # decoders raise errors of any type for a broken file
        return Picture(None, size, modified, describe_error(error))  # without the path, which differs between machines


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Ignore Pillow's warnings, in the whole process: such a file is either read or listed with a reason."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
