"""Maps laid over the picture that the model saw, as JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image

__all__ = ["jpeg_bytes", "overlay", "overlay_bytes", "overlay_name"]

QUALITY = 90
LARGEST_SIDE = 65_500  # of a JPEG, in pixels


def overlay_name(name: str) -> str:
    """Where an image's overlays go, below the output folder."""
    return f"overlays/{name}.jpg"


def overlay(pixels: NDArray[np.uint8], saliency_map: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map `(H, W)` in [0, 1] over RGB pixels `(H, W, 3)`, as the library draws it."""
    picture = pixels.astype(np.float32) / 255
    shown: NDArray[np.uint8] = show_cam_on_image(picture, saliency_map.astype(np.float32), use_rgb=True)
    return shown


def overlay_bytes(pixels: NDArray[np.uint8], maps: NDArray[np.float32]) -> bytes:
    """A JPEG with the picture and every map over it.

    Args:
        pixels: `(H, W, 3)`, RGB.
        maps: `(methods, layers, targets, H, W)`: a row for every layer and target, a column for every method.

    Raises:
        ValueError: they don't fit into a JPEG.
    """
    methods, layers, targets, height, width = maps.shape
    if max(sides := ((methods + 1) * width, layers * targets * height)) > LARGEST_SIDE:
        raise ValueError(f"overlays of {sides[0]} x {sides[1]} px: a JPEG has {LARGEST_SIDE} at most")
    rows = [
        np.hstack([pixels, *(overlay(pixels, of_method[layer, target]) for of_method in maps)])
        for layer in range(layers)
        for target in range(targets)
    ]
    return jpeg_bytes(Image.fromarray(np.vstack(rows)))


def jpeg_bytes(picture: Image.Image) -> bytes:
    """The picture as a JPEG file; the same pixels always give the same bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
