"""Images: from a file to the model's input, and back to something to show."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError, check_file, reason

__all__ = [
    "FORMATS",
    "LARGEST_RESIZED",
    "check_proportions",
    "cropped",
    "normalized",
    "preprocessed",
    "read_image",
    "shown",
    "upright_rgb",
]

Pictured = TypeVar("Pictured")  # an image, or what lies in it

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


def cropped(image: Pictured, resize: int, crop: int | None) -> Pictured:
    """The part that the model sees: the shorter side resized, then the centre `crop` x `crop`; None: all of it.

    Boxes and masks of an image (`torchvision.tv_tensors`) follow it.
    """
    resized: Pictured = TF.resize(image, [resize], antialias=True)
    return resized if crop is None else TF.center_crop(resized, [crop])


def normalized(pixels: Tensor, classifier: Classifier) -> Tensor:
    """The model's input on its device, `(B, 3, H, W)`, float32, from RGB pixels `(B, H, W, 3)`, uint8."""
    channels = pixels.to(classifier.mean.device).permute(0, 3, 1, 2).contiguous()
    images: Tensor = (channels.float().div(255) - classifier.mean) / classifier.std
    return images


def check_proportions(size: tuple[int, int], resize: int) -> None:
    """Raise UsageError for an image, width by height in pixels, that is too long and narrow to be resized."""
    if resize**2 * max(size) > LARGEST_RESIZED * min(size):
        raise UsageError(f"{size[0]} x {size[1]} px is too long and narrow to be resized to {resize} px")


def preprocessed(image: Image.Image, classifier: Classifier) -> Tensor:
    """`(1, 3, H, W)`: resized, cropped and normalised as for the model's training.

    Raises:
        UsageError: it is too long and narrow to be resized, or there is not the memory.
    """
    check_proportions(image.size, classifier.resize)
    try:
        picture = cropped(image, classifier.resize, classifier.size)
    except MemoryError as error:
        raise UsageError(f"{image.width} x {image.height} px: there is not the memory to resize it") from error
    return normalized(torch.from_numpy(np.array(picture))[None], classifier)


def shown(images: Tensor, classifier: Classifier) -> NDArray[np.float32]:
    """The model's input as an RGB picture: `(H, W, 3)`, float32, in [0, 1]."""
    pixels = (images[0] * classifier.std + classifier.mean).clamp(0, 1)
    picture: NDArray[np.float32] = pixels.permute(1, 2, 0).cpu().numpy()
    return picture
