"""Sources of scenes, split in two: handwritten digits and photographs, both shipped with scikit-learn."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images

__all__ = ["CLASSES", "Split", "split_digits", "split_photos"]

Split = Literal["train", "held-out"]

CLASSES = 10

_HELD_OUT_EVERY = 5  # every fifth digit is held out: 359 of 1,797
_HELD_OUT_WIDTH = 1 / 3  # of each photograph, from the left


@lru_cache
def split_digits(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the digits of a split `(N, 8, 8)`, ink in [0, 1], and their classes `(N,)`.

    Raises:
        ValueError: the split does not exist.
    """
    data = load_digits()
    held_out = np.arange(len(data.target)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    chosen = held_out if _is_held_out(split) else ~held_out
    return (data.images[chosen] / 16).astype(np.float32), data.target[chosen].astype(np.int64)


@lru_cache
def split_photos(split: Split) -> list[NDArray[np.uint8]]:
    """Return the part of both photographs that belongs to a split, RGB, `(427, width, 3)` each.

    Raises:
        ValueError: the split does not exist.
    """
    photos = load_sample_images().images
    cuts = [round(photo.shape[1] * _HELD_OUT_WIDTH) for photo in photos]
    if _is_held_out(split):
        return [photo[:, :cut] for photo, cut in zip(photos, cuts, strict=True)]
    return [photo[:, cut:] for photo, cut in zip(photos, cuts, strict=True)]


def _is_held_out(split: str) -> bool:
    if split not in ("train", "held-out"):
        raise ValueError(f'split must be "train" or "held-out", got {split!r}')
    return split == "held-out"
