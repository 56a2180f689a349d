"""Scenes of handwritten digits on photographs, with the box of every digit, made without a download.

A scene has one digit, or two of different classes, of random size, place, slant, colour and opacity on a random crop of
a photograph, and distractors: halves of other digits and curved strokes. Held-out scenes share neither a digit nor a
pixel of a photograph with the training scenes.
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
from holistic_cam_plugin.demo.strokes import Mask, draw_curve, draw_digit, draw_half_digit

__all__ = ["DEMO_IMAGE", "SCENE_SIZE", "Box", "Colour", "Scene", "load_demo_image", "make_demo_scene", "make_scene"]

Array = NDArray[np.float32]
Colour = tuple[float, float, float]  # RGB in [0, 1]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are the first column and row outside

SCENE_SIZE = 224  # side in px by default

DEMO_IMAGE = "demo.png"
_DEMO_SEED = 56  # a calm scene with legible digits, chosen by eye from a hundred

_CROP = (100, 210)  # side in px of the crop; the held-out part of the photograph is 213 px wide

_SMALLEST, _LARGEST = 32, 110  # height of a digit in px, before its slant
_SHARE = {1: 0.6, 2: 0.42}  # largest height of a digit over the scene's side, by the number of digits
_GAP = 3  # px between shapes
_TRIES = 30  # places tried per shape
_CONTRAST = 0.35  # least difference in luma, in [0, 1], between a shape and the mean of its background


class Scene(NamedTuple):
    """An image with its digits.

    Attributes:
        image: `(3, size, size)`, RGB in [0, 1].
        labels: the class of each digit.
        boxes: the tight box of each digit's strokes.
        backdrop: the image without its digits, but with the distractors; it differs from `image` only inside the boxes.
    """

    image: Array
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]
    backdrop: Array

    @property
    def masks(self) -> tuple[NDArray[np.bool_], ...]:
        """Masks `(size, size)` of each digit's strokes."""
        strokes = (self.image != self.backdrop).any(axis=0)
        masks = tuple(np.zeros_like(strokes) for _ in self.boxes)
        for mask, (x0, y0, x1, y1) in zip(masks, self.boxes, strict=True):
            mask[y0:y1, x0:x1] = strokes[y0:y1, x0:x1]
        return masks


def make_scene(
    seed: int | Sequence[int] | np.random.Generator,
    split: Split,
    size: int = SCENE_SIZE,
    digits: int = 1,
    colours: Sequence[Colour] | None = None,
) -> Scene:
    """Make a random scene; the same seed gives the same scene.

    Args:
        seed: a seed for `numpy.random.default_rng`.
        split: which digits and which part of the photographs to use.
        size: side in pixels, at least 96.
        digits: 1, or 2 for digits of different classes whose boxes do not overlap.
        colours: colour of each digit, RGB in [0, 1]. By default, random ones with enough contrast.

    Raises:
        ValueError: the split does not exist, the size is too small, the number of digits is not 1 or 2, or that of the
            colours is another.
    """
    if size < 96:
        raise ValueError(f"size must be at least 96 px, got {size}")
    if digits not in _SHARE:
        raise ValueError(f"digits must be 1 or 2, got {digits!r}")
    if colours is not None and len(colours) != digits:
        raise ValueError(f"{digits} digits need as many colours, got {len(colours)}")
    rng = np.random.default_rng(seed)
    canvas = _crop_photo(rng, split, size)
    labels = tuple(int(label) for label in rng.choice(CLASSES, digits, replace=False))
    heights = np.exp(rng.uniform(np.log(_SMALLEST), np.log(min(_LARGEST, _SHARE[digits] * size)), digits))
    masks, boxes = _place_digits(rng, split, size, labels, heights)
    _paint_distractors(rng, canvas, split, boxes, heights)
    backdrop = canvas.copy()
    for mask, box, colour in zip(masks, boxes, colours or (None,) * digits, strict=True):
        _paint(rng, canvas, mask, box, colour)
    return Scene(_move_channels_first(canvas), labels, tuple(boxes), _move_channels_first(backdrop))


def make_demo_scene() -> Scene:
    """Make the scene of the bundled picture: held-out, with two digits."""
    return make_scene(_DEMO_SEED, "held-out", digits=2)


def load_demo_image() -> Image.Image:
    """Load the bundled picture, RGB, 224 x 224."""
    with resources.files(__package__).joinpath(DEMO_IMAGE).open("rb") as file:
        return Image.open(file).convert("RGB")


def _crop_photo(rng: np.random.Generator, split: Split, size: int) -> Array:
    """Crop a photograph at random, mirror it or not, and change its light: `(size, size, 3)`."""
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


def _place_digits(
    rng: np.random.Generator, split: Split, size: int, labels: Sequence[int], heights: NDArray[np.float64]
) -> tuple[list[Mask], list[Box]]:
    """Draw the digits' masks and boxes, again until no boxes overlap."""
    while True:
        masks = [draw_digit(rng, split, label, height) for label, height in zip(labels, heights, strict=True)]
        boxes: list[Box] = []
        for mask in masks:
            box = _find_free_box(rng, mask, size, boxes)
            if box is not None:
                boxes.append(box)
        if len(boxes) == len(masks):
            return masks, boxes


def _paint_distractors(
    rng: np.random.Generator, canvas: Array, split: Split, boxes: Sequence[Box], heights: NDArray[np.float64]
) -> None:
    """Paint one to four shapes of about the digits' size that overlap neither the boxes nor each other."""
    taken = list(boxes)
    for _ in range(rng.integers(1, 4, endpoint=True)):
        height = rng.choice(heights) * rng.uniform(0.7, 1)
        mask = draw_half_digit(rng, split, height) if rng.random() < 0.6 else draw_curve(rng, height)
        box = _find_free_box(rng, mask, len(canvas), taken)
        if box is not None:
            _paint(rng, canvas, mask, box)
            taken.append(box)


def _find_free_box(rng: np.random.Generator, mask: Mask, size: int, taken: Sequence[Box]) -> Box | None:
    """Find a random place for the mask that overlaps no taken box; None if no place was found."""
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


def _paint(rng: np.random.Generator, canvas: Array, mask: Mask, box: Box, given: Colour | None = None) -> None:
    """Paint the mask in the given colour, or in a random one of enough contrast, in place."""
    x0, y0, x1, y1 = box
    region = canvas[y0:y1, x0:x1]
    under = _compute_luma(region.mean(axis=(0, 1)))
    colours = rng.uniform(0, 1, (16, 3)).astype(np.float32)
    contrast = np.abs(_compute_luma(colours) - under)
    # The first colour of enough contrast, else the best one.
    colour = colours[np.argmax(contrast >= _CONTRAST) if (contrast >= _CONTRAST).any() else contrast.argmax()]
    if given is not None:
        colour = np.asarray(given, np.float32)
    opacity = mask[..., None] * np.float32(rng.uniform(0.8, 1))
    region += opacity * (colour - region)


def _compute_luma(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _move_channels_first(image: Array) -> Array:
    return np.ascontiguousarray(image.transpose(2, 0, 1))
