"""Read images from files and convert them to the model's input."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from holistic_cam_plugin.errors import UsageError, check_file, describe_error
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = [
    "FORMATS",
    "LARGEST_RESIZED",
    "check_proportions",
    "convert_to_rgb",
    "open_image",
    "preprocess_image",
    "read_image",
]

# Pillow can do more, but some of its formats start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
# Most pixels of the resized image, before the crop: a line of 1 x 5000 px would become one of 256 x 1,280,000.
LARGEST_RESIZED = 2**26
# A JPEG file of more than twice this on both sides is decoded at a half, a quarter or an eighth of its size: that takes
# less time and memory; a classifier sees far fewer pixels.
DRAFT_SIDE = 2048


def read_image(path: Path) -> Image.Image:
    """Read an upright RGB image from a file in one of the `FORMATS`; its name does not matter.

    Raises:
        UsageError: the file does not exist, is damaged, or is not an image.
    """
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with open_image(path) as image:
                return convert_to_rgb(image)
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise UsageError(f"{path} cannot be read as an image: {describe_error(error)}") from error


@contextmanager
def open_image(source: Path | bytes) -> Iterator[Image.Image]:
    """Open a file, or its bytes, in one of the `FORMATS`.

    Raises:
        ValueError: it has another format; says what to do.
        OSError, SyntaxError, ...: Pillow's errors for damaged files.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(_describe_format(source)) from error


def _describe_format(source: Path | bytes) -> str:
    """Say why a file of none of the `FORMATS`, or its bytes, cannot be read, from its first ones."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"%PDF"):
        return "it is a PDF: save the page as a PNG first"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "it is HEIF, as HEIC and AVIF are: convert it to JPEG or PNG first"
    return f"its format is none of {', '.join(FORMATS)}"


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to eight bits per channel, turned as its EXIF data say, without transparency.

    Of an animation, the first frame is taken. Grey values of 16 bits are scaled by the fewest bits that hold them all:
    those of a microscope with 12 bits by 4095.

    Raises:
        ValueError: the range of the values is unknown (32-bit integers or floating point).
        OSError, SyntaxError, ...: Pillow's errors for damaged files.
    """
    image.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
    upright = ImageOps.exif_transpose(image)
    sixteen_bits = upright.mode.startswith("I;16") or (upright.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen_bits:  # Pillow's own conversion clips values at 255
        values = np.asarray(upright)
        white = 2 ** max(8, int(values.max()).bit_length()) - 1
        return Image.fromarray((values * (255 / white)).round().astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise ValueError(f"mode {upright.mode} has 32 bits per value, and the values of black and white are unknown")
    if "transparency" in upright.info:  # a palette's is stored as bytes
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def check_proportions(size: tuple[int, int], preprocessing: Preprocessing) -> None:
    """Raise UsageError if an image of this width and height in pixels is too long and narrow to be resized."""
    if preprocessing.resized_area(*size) > LARGEST_RESIZED:
        raise UsageError(f"{size[0]} x {size[1]} px is too long and narrow to be resized to {preprocessing.resize} px")


def preprocess_image(image: Image.Image, classifier: Classifier) -> Tensor:
    """Convert an image to the model's input `(1, C, H, W)` on its device.

    Raises:
        UsageError: the image is too long and narrow to be resized, or memory ran out.
    """
    check_proportions(image.size, classifier.preprocessing)
    try:
        return classifier.preprocessing.to_tensor(image).to(classifier.device)
    except MemoryError as error:
        raise UsageError(f"{image.width} x {image.height} px: not enough memory to resize it") from error
