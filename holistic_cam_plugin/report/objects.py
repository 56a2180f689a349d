"""Where the object of an image is: its mask or its boxes, in the pixels of the map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.tv_tensors import BoundingBoxes, Mask

from holistic_cam_plugin.errors import UsageError, check_file, describe_error
from holistic_cam_plugin.metrics import rasterize_region
from holistic_cam_plugin.models.images import FORMATS, convert_to_rgb
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["Upright", "draw_outline", "find_mask", "read_boxes", "read_mask", "read_upright"]

# More of a mask's pixels than this, relative to those that are not black, between black and white: not a mask.
_MOST_GRAY = 0.2


class Upright(NamedTuple):
    """An upright picture, and its size in pixels in the file: large JPEG files are decoded at a reduced size."""

    pixels: Image.Image
    width: int
    height: int


def read_upright(path: Path) -> Upright:
    """Read a picture, with Pillow's warnings: many threads may read at once.

    Raises:
        UsageError: The file does not exist, is damaged, or is not an image.
    """
    check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            stored = image.size
            pixels = convert_to_rgb(image)
            return Upright(pixels, *(stored if pixels.size == image.size else stored[::-1]))
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise UsageError(f"{path.name} cannot be read as an image: {describe_error(error)}") from error


def find_mask(folder: Path, file: str) -> Path | None:
    """Return the mask of an image: the file of the same path and name, with any ending, or with `.png` added."""
    for name in _list_names(file):
        if (folder / name).is_file():
            return folder / name
    return None


def _list_names(file: str) -> Iterator[str]:
    path = PurePosixPath(file)
    yield f"{file}.png"
    for suffix in (".png", path.suffix, ".bmp", ".gif", ".jpg", ".tif", ".tiff"):
        yield str(path.with_suffix(suffix))


def read_mask(path: Path, picture: Upright, preprocessing: Preprocessing, crop: bool) -> NDArray[np.bool_]:
    """Return the pixels `(H, W)` of an object in the part of the picture that the model sees.

    Args:
        path: The mask: white, or the largest value, on black. It covers the whole picture, in any size.
        preprocessing, crop: How the model's input is made of the picture.

    Raises:
        UsageError: The file is not an image or not a mask.
    """
    gray = np.array(read_upright(path).pixels.convert("L"))
    peak = int(gray.max())
    between = (gray > peak / 4) & (gray < 3 * peak / 4)
    if between.sum() > _MOST_GRAY * np.count_nonzero(gray):
        raise UsageError(f"{path.name} has more than two values, where a mask is white on black")
    mask = Image.fromarray(np.uint8(255) * (gray >= max(peak / 2, 1))).resize(
        picture.pixels.size, Image.Resampling.NEAREST
    )
    seen = preprocessing.resize_and_crop(Mask(torch.from_numpy(np.array(mask))[None]), crop=crop)
    return np.asarray(seen[0].numpy() > 0)


def read_boxes(text: str, picture: Upright, preprocessing: Preprocessing, crop: bool) -> NDArray[np.bool_]:
    """Return the pixels `(H, W)` inside the boxes in the part of the picture that the model sees.

    Args:
        text: JSON, `[[left, top, right, bottom], ...]` in pixels of the upright file.
        picture, preprocessing, crop: As in `read_mask`.

    Raises:
        UsageError: No box, or no valid one, or none is visible.
    """
    try:
        corners = torch.tensor(json.loads(text), dtype=torch.float64).reshape(-1, 4)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"boxes must be [[left, top, right, bottom], ...], got {text[:100]}") from error
    width, height = picture.pixels.size
    scale = torch.tensor([width / picture.width, height / picture.height] * 2, dtype=torch.float64)
    boxes = BoundingBoxes(corners * scale, format="XYXY", canvas_size=(height, width))
    seen = preprocessing.resize_and_crop(boxes, crop=crop)
    height, width = seen.canvas_size
    # torchvision scales in single precision; an edge in the middle of a pixel must stay there.
    visible = [box for box in seen.round(decimals=4).tolist() if box[0] < box[2] and box[1] < box[3]]
    mask = np.zeros((height, width), np.bool_)
    return rasterize_region(visible, height, width) if visible else mask


def draw_outline(mask: NDArray[np.bool_]) -> str:
    """Return the outline of a mask as the path of an SVG, to a pixel: through the centres of the pixels at its edge.

    Example:
        >>> mask = np.zeros((5, 5), bool)
        >>> mask[1:4, 1:4] = True
        >>> draw_outline(mask)
        'M1 1L1 3L3 3L3 1Z'
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours = [cv2.approxPolyDP(contour, 1, closed=True) for contour in contours]
    return "".join(f"M{'L'.join(f'{x} {y}' for x, y in contour[:, 0])}Z" for contour in contours)
