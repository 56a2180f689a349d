"""Scenes of handwritten digits on photographs: no download, and every digit's box is known.

A scene is one digit (or two of different classes) of random size, place, slant, colour and opacity on a random crop of
a photograph, among distractors: halves of other digits and curved strokes. A held-out scene shares neither a digit nor
a pixel of photograph with the training scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.demo.sources import CLASSES, Split, split_photos
from holistic_cam_plugin.demo.strokes import Mask, curve, half_digit, whole_digit

__all__ = ["DEMO_IMAGE", "SCENE_SIZE", "Box", "Scene", "demo_image", "demo_scene", "make_scene"]

Array = NDArray[np.float32]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are the first column and row outside

SCENE_SIZE = 224  # px a side, unless another size is asked for

DEMO_IMAGE = "demo.png"
_DEMO_SEED = 56  # of a hundred, by eye: a calm scene whose digits a person reads at once

_CROP = (100, 210)  # px of the photograph; its held-out part is 213 px wide

_SMALLEST, _LARGEST = 32, 110  # height of a digit in px, before its slant
_SHARE = {1: 0.6, 2: 0.42}  # a digit's height over the scene's side at most, by the number of digits: room to place it
_GAP = 3  # px between two shapes
_TRIES = 30  # places tried for a shape
_CONTRAST = 0.35  # at least, between a shape and the mean of what is under it, luma in [0, 1]


class Scene(NamedTuple):
    """An image with its digits.

    Attributes:
        image: `(3, size, size)`, RGB in [0, 1].
        labels: the class of each digit.
        boxes: the tight box of each digit's strokes.
        backdrop: the image without its digits, distractors included; it differs from `image` inside the boxes alone.
    """

    image: Array
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]
    backdrop: Array

    @property
    def masks(self) -> tuple[NDArray[np.bool_], ...]:
        """The pixels of each digit's strokes, `(size, size)`."""
        strokes = (self.image != self.backdrop).any(axis=0)
        masks = tuple(np.zeros_like(strokes) for _ in self.boxes)
        for mask, (x0, y0, x1, y1) in zip(masks, self.boxes, strict=True):
            mask[y0:y1, x0:x1] = strokes[y0:y1, x0:x1]
        return masks


def make_scene(
    seed: int | Sequence[int] | np.random.Generator, split: Split, size: int = SCENE_SIZE, digits: int = 1
) -> Scene:
    """A random scene; the same seed gives the same scene.

    Args:
        seed: whatever `numpy.random.default_rng` takes.
        split: which digits and which part of the photographs it is made of.
        size: side in pixels, at least 96.
        digits: 1, or 2 of different classes whose boxes do not overlap.

    Raises:
        ValueError: an unknown split, or a size or number of digits outside these.
    """
    if size < 96:
        raise ValueError(f"size must be at least 96 px, to hold two digits of {_SMALLEST} px, got {size}")
    if digits not in _SHARE:
        raise ValueError(f"digits must be 1 or 2, got {digits!r}")
    rng = np.random.default_rng(seed)
    canvas = _photo(rng, split, size)
    labels = tuple(int(label) for label in rng.choice(CLASSES, digits, replace=False))
    heights = np.exp(rng.uniform(np.log(_SMALLEST), np.log(min(_LARGEST, _SHARE[digits] * size)), digits))
    masks, boxes = _placed_digits(rng, split, size, labels, heights)
    _paint_distractors(rng, canvas, split, boxes, heights)
    backdrop = canvas.copy()
    for mask, box in zip(masks, boxes, strict=True):
        _paint(rng, canvas, mask, box)
    return Scene(_channels_first(canvas), labels, tuple(boxes), _channels_first(backdrop))


def demo_scene() -> Scene:
    """The bundled picture's scene: held-out, two digits."""
    return make_scene(_DEMO_SEED, "held-out", digits=2)


def demo_image() -> Image.Image:
    """The bundled picture, RGB, 224 x 224; `python -m holistic_cam_plugin.demo.train --image` makes it."""
    with resources.files(__package__).joinpath(DEMO_IMAGE).open("rb") as file:
        return Image.open(file).convert("RGB")


def _photo(rng: np.random.Generator, split: Split, size: int) -> Array:
    """A random crop of a photograph, mirrored or not, in random light: `(size, size, 3)`."""
    photos = split_photos(split)
    photo = photos[rng.integers(len(photos))]
    side = rng.integers(*_CROP, endpoint=True)
    y, x = (rng.integers(extent - side, endpoint=True) for extent in photo.shape[:2])
    crop = photo[y : y + side, x : x + side]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    resized = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC if side < size else cv2.INTER_AREA)
    gain, offset = rng.uniform(0.7, 1.2), rng.uniform(-0.1, 0.1)
    lit: Array = np.clip(resized.astype(np.float32) * np.float32(gain / 255) + np.float32(offset), 0, 1)
    return lit


def _placed_digits(
    rng: np.random.Generator, split: Split, size: int, labels: Sequence[int], heights: NDArray[np.float64]
) -> tuple[list[Mask], list[Box]]:
    """The digits' masks and their places; all are drawn anew until they fit beside each other."""
    while True:
        masks = [whole_digit(rng, split, label, height) for label, height in zip(labels, heights, strict=True)]
        boxes: list[Box] = []
        for mask in masks:
            box = _free_box(rng, mask, size, boxes)
            if box is not None:
                boxes.append(box)
        if len(boxes) == len(masks):
            return masks, boxes


def _paint_distractors(
    rng: np.random.Generator, canvas: Array, split: Split, boxes: Sequence[Box], heights: NDArray[np.float64]
) -> None:
    """One to four shapes that are no digits, of about the digits' size, beside the boxes and each other."""
    taken = list(boxes)
    for _ in range(rng.integers(1, 4, endpoint=True)):
        height = rng.choice(heights) * rng.uniform(0.7, 1)
        mask = half_digit(rng, split, height) if rng.random() < 0.6 else curve(rng, height)
        box = _free_box(rng, mask, len(canvas), taken)
        if box is not None:
            _paint(rng, canvas, mask, box)
            taken.append(box)


def _free_box(rng: np.random.Generator, mask: Mask, size: int, taken: Sequence[Box]) -> Box | None:
    """A random place for the mask inside the scene and beside the taken boxes; None if none was found."""
    height, width = mask.shape
    if max(height, width) > size:
        return None
    for _ in range(_TRIES):
        x0, y0 = (int(rng.integers(size - extent, endpoint=True)) for extent in (width, height))
        x1, y1 = x0 + width, y0 + height
        if all(
            x1 + _GAP <= left or right + _GAP <= x0 or y1 + _GAP <= top or bottom + _GAP <= y0
            for left, top, right, bottom in taken
        ):
            return x0, y0, x1, y1
    return None


def _paint(rng: np.random.Generator, canvas: Array, mask: Mask, box: Box) -> None:
    """Blend a random colour that stands out into the box, in place."""
    x0, y0, x1, y1 = box
    region = canvas[y0:y1, x0:x1]
    under = _luma(region.mean(axis=(0, 1)))
    colours = rng.uniform(0, 1, (16, 3)).astype(np.float32)
    contrast = np.abs(_luma(colours) - under)
    # The first colour that stands out, or of a few unlucky ones the best.
    colour = colours[np.argmax(contrast >= _CONTRAST) if (contrast >= _CONTRAST).any() else contrast.argmax()]
    opacity = mask[..., None] * np.float32(rng.uniform(0.8, 1))
    region += opacity * (colour - region)


def _luma(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _channels_first(image: Array) -> Array:
    return np.ascontiguousarray(image.transpose(2, 0, 1))
