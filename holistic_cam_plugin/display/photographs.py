"""Maps of a crop, brought back to the photograph that the crop was taken from."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from holistic_cam_plugin.display.maps import apply_scale, overlay_map

__all__ = ["UNSEEN", "Box", "bound_size", "is_whole", "overlay_photograph", "place_map", "scale_box"]

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the photograph

UNSEEN = "Faded: not seen by the model."
_FADE = 0.3  # of the contrast of the photograph that is left outside the crop


def bound_size(size: tuple[int, int], largest: tuple[float, float]) -> tuple[int, int]:
    """Shrink a size until it fits into another one, with the same aspect ratio; a smaller one is left as it is.

    Example:
        >>> bound_size((4000, 3000), (1000, 1000)), bound_size((400, 300), (1000, 1000))
        ((1000, 750), (400, 300))
    """
    share = min(1.0, *(most / side for most, side in zip(largest, size, strict=True)))
    width, height = (max(1, round(share * side)) for side in size)
    return width, height


def scale_box(box: Box, size: tuple[int, int], new: tuple[int, int]) -> Box:
    """Convert a box in a photograph of a size, width and height, to the same one resized to `new`."""
    across, down = new[0] / size[0], new[1] / size[1]
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down


def is_whole(box: Box, size: tuple[int, int]) -> bool:
    """Whether the centres of all pixels of a photograph, of a width and height, are in the box."""
    left, top, right, bottom = box
    return max(left, top) <= 0.5 and right >= size[0] - 0.5 and bottom >= size[1] - 0.5


def place_map(crop_map: NDArray[np.float32], box: Box, size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a map of a crop to the photograph's pixels, bilinearly: the inverse of the resize and the crop.

    Args:
        crop_map: `(h, w)`, in [0, 1].
        box: the crop, in pixels of the photograph, as `Preprocessing.find_crop` returns it.
        size: width and height of the photograph.

    Returns:
        `(height, width)`, float32, in [0, 1]; NaN for pixels whose centre is outside the crop.
    """
    width, height = size
    left, top, right, bottom = box
    across, down = crop_map.shape[1] / (right - left), crop_map.shape[0] / (bottom - top)
    # From the centre of a pixel of the photograph to the crop's, whose first centre is 0 for OpenCV.
    matrix = np.array([[across, 0, (0.5 - left) * across - 0.5], [0, down, (0.5 - top) * down - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    placed: NDArray[Any] = cv2.warpAffine(crop_map, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    placed[(rows < top) | (rows > bottom)] = np.nan
    placed[:, (columns < left) | (columns > right)] = np.nan
    return placed


def overlay_photograph(
    photo: NDArray[np.uint8], crop_map: NDArray[np.float32], box: Box, *, scale: str, colormap: str, opacity: float
) -> NDArray[np.uint8]:
    """Draw a map of a crop over the whole photograph, which is grey and faded outside the crop.

    Args:
        photo: `(H, W, 3)`, RGB.
        crop_map, box: as in `place_map`.
        scale, colormap, opacity: as in `overlay_map`.

    Returns:
        `(H, W, 3)`, RGB, uint8.
    """
    placed = place_map(apply_scale(crop_map, scale), box, (photo.shape[1], photo.shape[0]))
    picture = np.divide(photo, 255, dtype=np.float32)
    drawn = overlay_map(picture, np.nan_to_num(placed), "linear", colormap, opacity)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    unseen = np.isnan(placed)
    drawn[unseen] = (255 - _FADE * (255 - grey[unseen, None].astype(np.float32))).astype(np.uint8)
    return drawn
