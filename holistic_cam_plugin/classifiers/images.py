"""Images: from a file to the model's input."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.classifiers.preprocessing import Preprocessing
from holistic_cam_plugin.errors import UsageError, check_file, reason

__all__ = [
    "FORMATS",
    "LARGEST_RESIZED",
    "check_proportions",
    "preprocessed",
    "read_image",
    "upright_rgb",
]

# Pillow can do more, but some of its formats start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# Of the resized copy, before the crop, in pixels: a line of 1 x 5000 px would become one of 256 x 1,280,000.
LARGEST_RESIZED = 2**26
# A JPEG file with more than twice this on both sides is decoded at a half, a quarter or an eighth, never below it:
# several times what any classifier sees, in a fraction of the time and memory.
DRAFT_SIDE = 2048


def read_image(path: Path) -> Image.Image:
    """An RGB image, upright, from a file in one of the `FORMATS`, whatever its name.

    Raises:
        UsageError: no such file (near matches are named), no image, or a damaged one.
    """
    check_file(path)
    try:
        with warnings.catch_warnings():
            # A file of which it warns is read all the same, or refused: noise on the terminal either way.
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(path, formats=FORMATS) as image:
                return upright_rgb(image)
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} can't be read as an image: its format is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise whatever a broken file makes of them
        raise UsageError(f"{path} can't be read as an image: {reason(error)}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image, of an animation the first frame, in eight bits a channel, turned as its EXIF data say.

    Transparency is dropped.

    Raises:
        ValueError: values without a known range (32-bit integers or floating point).
        OSError, SyntaxError, ...: Pillow's, for a damaged file.
    """
    image.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
    upright = ImageOps.exif_transpose(image)
    sixteen_bits = upright.mode.startswith("I;16") or (upright.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen_bits:  # Pillow's own conversion cuts them off at 255
        return Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ValueError(f"{upright.mode} mode, 32 bits a value: the range that means black to white is unknown")
    if "transparency" in upright.info:  # a palette's is told in bytes
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def check_proportions(size: tuple[int, int], preprocessing: Preprocessing) -> None:
    """Raise UsageError for an image, width by height in pixels, that is too long and narrow to be resized."""
    if preprocessing.resized_area(*size) > LARGEST_RESIZED:
        raise UsageError(f"{size[0]} x {size[1]} px is too long and narrow to be resized to {preprocessing.resize} px")


def preprocessed(image: Image.Image, classifier: Classifier) -> Tensor:
    """`(1, C, H, W)` on the model's device: resized, cropped and normalised as for the model's training.

    Raises:
        UsageError: it is too long and narrow to be resized, or there is not the memory.
    """
    check_proportions(image.size, classifier.preprocessing)
    try:
        return classifier.preprocessing(image).to(classifier.device)
    except MemoryError as error:
        raise UsageError(f"{image.width} x {image.height} px: there is not the memory to resize it") from error
