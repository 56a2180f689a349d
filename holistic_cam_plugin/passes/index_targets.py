"""Targets by index, in captum's conventions."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holistic_cam_plugin.passes.targets import Target

__all__ = ["Index", "OutputEntryTarget", "index_targets"]

# One for all images, or one per image.
Index: TypeAlias = int | tuple[int, ...] | list[int] | list[tuple[int, ...]] | Tensor | NDArray[np.integer]


@dataclass(frozen=True)
class OutputEntryTarget:
    """Scores an image by one entry of its output, such as that of a class, or of a class at one position.

    Attributes:
        index: one integer per dimension of the output; negative ones count from the end.
    """

    index: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        """The entry; TypeError or ValueError if the output has no such entry."""
        if not isinstance(output, Tensor):
            given = type(output).__name__
            raise TypeError(f"target {self.index} needs a tensor, but the model returned a {given} per image")
        shape = tuple(output.shape)
        if len(self.index) != len(shape) or not all(-n <= i < n for i, n in zip(self.index, shape, strict=True)):
            remedy = "pass a class index, or a list with one per image"
            if len(shape) != 1:
                remedy = f"pass a tuple of {len(shape)} indices, or a list with one per image"
            raise ValueError(f"target {self.index} is no entry of an output of shape {shape}: {remedy}")
        return output[self.index]


def index_targets(target: Index | None, images: int) -> list[Target] | None:
    """Turn captum's `target` into one target per image.

    Args:
        target: an integer, or a tuple with one integer per dimension of an image's output: the same entry for all
            images. A list of these, or a tensor of integers `(B,)`: one per image. None: None.
        images: the number of images.

    Raises:
        TypeError, ValueError: anything else, or the number of targets differs from the number of images.
    """
    if target is None:
        return None
    given: Any = target
    if isinstance(given, (Tensor, np.ndarray)):
        given = _of_array(given)
    if not isinstance(given, list):
        return [OutputEntryTarget(_indices(given))] * images
    if len(given) != images:
        raise ValueError(f"got {len(given)} targets for {images} images: pass one per image, or an integer for all")
    return [OutputEntryTarget(_indices(one)) for one in given]


def _of_array(array: Tensor | NDArray[Any]) -> Any:
    """A tensor's targets as numbers; a single element applies to all images, as in captum."""
    if array.ndim > 1:
        raise ValueError(f"a tensor of targets must be (B,), got shape {tuple(array.shape)}")
    values = array.reshape(-1).tolist()
    return values[0] if len(values) == 1 else values


def _indices(one: Any) -> tuple[int, ...]:
    indices = one if isinstance(one, tuple) else (one,)
    if not indices or not all(isinstance(i, Integral) and not isinstance(i, bool) for i in indices):
        raise TypeError(f"a target must be a class index or a tuple of indices, got {one!r}")
    return tuple(int(i) for i in indices)
