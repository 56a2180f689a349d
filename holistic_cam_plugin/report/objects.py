"""Where the object of an image is: its mask or its boxes, in the pixels of the map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torchvision.tv_tensors import BoundingBoxes, Mask

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import rasterize_region
from holistic_cam_plugin.models.images import read_image
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["draw_outline", "find_mask", "read_boxes", "read_mask"]

# More of a mask's pixels than this, relative to those that are not black, between black and white: not a mask.
_MOST_GRAY = 0.2


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


def read_mask(path: Path, picture: Image.Image, preprocessing: Preprocessing, crop: bool) -> NDArray[np.bool_]:
    """Return the pixels `(H, W)` of an object in the part of the picture that the model sees.

    Args:
        path: The mask: white, or the largest value, on black. It covers the whole picture, in any size.
        picture: The upright picture.
        preprocessing, crop: How the model's input is made of it.

    Raises:
        UsageError: The file is not an image or not a mask.
    """
    gray = np.array(read_image(path).convert("L"))
    peak = int(gray.max())
    between = (gray > peak / 4) & (gray < 3 * peak / 4)
    if between.sum() > _MOST_GRAY * np.count_nonzero(gray):
        raise UsageError(f"{path.name} has more than two values, where a mask is white on black")
    mask = Image.fromarray(np.uint8(255) * (gray >= max(peak / 2, 1))).resize(picture.size, Image.Resampling.NEAREST)
    seen = preprocessing.resize_and_crop(Mask(torch.from_numpy(np.array(mask))[None]), crop=crop)
    return np.asarray(seen[0].numpy() > 0)


def read_boxes(
    text: str, path: Path, picture: Image.Image, preprocessing: Preprocessing, crop: bool
) -> NDArray[np.bool_]:
    """Return the pixels `(H, W)` inside the boxes in the part of the picture that the model sees.

    Args:
        text: JSON, `[[left, top, right, bottom], ...]` in pixels of the upright file.
        path: The file of the picture.
        picture, preprocessing, crop: As in `read_mask`.

    Raises:
        UsageError: No box, or no valid one, or none is visible.
    """
    try:
        corners = torch.tensor(json.loads(text), dtype=torch.float64).reshape(-1, 4)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"boxes must be [[left, top, right, bottom], ...], got {text[:100]}") from error
    boxes = BoundingBoxes(
        corners / _measure_reduction(path, picture), format="XYXY", canvas_size=(picture.height, picture.width)
    )
    seen = preprocessing.resize_and_crop(boxes, crop=crop)
    height, width = seen.canvas_size
    # torchvision scales in single precision; an edge in the middle of a pixel must stay there.
    visible = [box for box in seen.round(decimals=4).tolist() if box[0] < box[2] and box[1] < box[3]]
    mask = np.zeros((height, width), np.bool_)
    return rasterize_region(visible, height, width) if visible else mask


def _measure_reduction(path: Path, picture: Image.Image) -> torch.Tensor:
    """Ratios of the upright file's width and height, twice, to those of the picture: large JPEG files are reduced."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # rotated by 90 degrees
            width, height = height, width
    return torch.tensor([width / picture.width, height / picture.height] * 2, dtype=torch.float64)


def draw_outline(mask: NDArray[np.bool_]) -> str:
    """Return the outline of a mask as the path of an SVG: through the centres of the pixels at its edge.

    Example:
        >>> mask = np.zeros((5, 5), bool)
        >>> mask[1:4, 1:4] = True
        >>> draw_outline(mask)
        'M1 1L1 3L3 3L3 1Z'
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_KCOS)
    return "".join(f"M{'L'.join(f'{x} {y}' for x, y in contour[:, 0])}Z" for contour in contours)
