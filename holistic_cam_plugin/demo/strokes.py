"""Draw shapes: opacity masks in [0, 1], float32, cropped to where they are above 0."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from holistic_cam_plugin.demo.sources import Split, split_digits

__all__ = ["draw_curve", "draw_digit", "draw_half_digit"]

Mask = NDArray[np.float32]

_SLANT = 0.2  # largest shear, and rotation in radians
_INK = (0.25, 0.7)  # enlarged ink: nothing below the first value, opaque above the second

# Halves that do not look like another digit, as the top of an 8 (a 0), the bottom of a 4 (a 1), and many left and right
# halves (a 1) do.
_HALVES = tuple(
    (label, side) for label, sides in {0: "tb", 2: "tb", 3: "tb", 4: "t", 5: "tb"}.items() for side in sides
)


def draw_digit(rng: np.random.Generator, split: Split, label: int, height: float) -> Mask:
    """Draw a digit of class `label`, about `height` px high, slanted at random."""
    images, labels = split_digits(split)
    image = images[rng.choice(np.flatnonzero(labels == label))]
    scale = height / image.shape[0]
    angle, shear = rng.uniform(-_SLANT, _SLANT, 2)
    width = scale * rng.uniform(0.85, 1.2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[width, shear * scale], [0, scale]])
    side = int(1.6 * height)  # holds the digit at any slant
    shift = side / 2 - matrix @ np.full(2, (image.shape[0] - 1) / 2)
    enlarged = cv2.warpAffine(image, np.column_stack([matrix, shift]), (side, side), flags=cv2.INTER_CUBIC)
    low, high = _INK
    ink = np.clip((enlarged - low) / (high - low), 0, 1)
    return _crop(ink * ink * (3 - 2 * ink))  # smoothstep: soft edges without a halo


def draw_half_digit(rng: np.random.Generator, split: Split, height: float) -> Mask:
    """Draw the top or bottom half of a digit of `height` px that does not look like a digit itself."""
    label, side = _HALVES[rng.integers(len(_HALVES))]
    mask = draw_digit(rng, split, label, height)
    rows = round(len(mask) * rng.uniform(0.4, 0.5))
    return _crop(mask[:rows] if side == "t" else mask[-rows:])


def draw_curve(rng: np.random.Generator, height: float) -> Mask:
    """Draw a curved stroke as thick as a digit's, up to `height` px long, and never upright like a 1."""
    side = int(1.5 * height)
    start, bend, end = (np.array([rng.uniform(low, high), rng.uniform(0.4, 0.9)]) for low, high in _SPANS)
    steps = np.linspace(0, 1, 24)[:, None]
    points = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
    canvas = np.zeros((side, side), np.uint8)
    thickness = max(2, round(height * rng.uniform(0.08, 0.16)))
    cv2.polylines(canvas, [np.asarray(points * height * 16, np.int32)], False, 255, thickness, cv2.LINE_AA, shift=4)
    return _crop(canvas.astype(np.float32) / np.float32(255))


# Where a curve's start, bend and end lie from left to right, in units of the height.
_SPANS = ((0.2, 0.3), (0.4, 1.0), (0.9, 1.2))


def _crop(mask: Mask) -> Mask:
    rows, columns = (np.flatnonzero((mask > 0).any(axis=axis)) for axis in (1, 0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
