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

# For all of the images, or one an image.
Index: TypeAlias = int | tuple[int, ...] | list[int] | list[tuple[int, ...]] | Tensor | NDArray[np.integer]


@dataclass(frozen=True)
class OutputEntryTarget:
    """The score is one entry of an image's output: a class's, or a class's at one position of a dense output.

    Attributes:
        index: one integer for each of the output's dimensions; negative ones count from the end.
    """

    index: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        """The entry; TypeError or ValueError where there is none."""
        if not isinstance(output, Tensor):
            given = type(output).__name__
            raise TypeError(f"target {self.index} is an entry of a tensor, the model returned a {given} an image")
        shape = tuple(output.shape)
        if len(self.index) != len(shape) or not all(-n <= i < n for i, n in zip(self.index, shape, strict=True)):
            remedy = "give a class index, or a list of one an image"
            if len(shape) != 1:
                remedy = f"give a tuple of {len(shape)} indices, or a list of one an image"
            raise ValueError(f"target {self.index} is no entry of an image's output of shape {shape}: {remedy}")
        return output[self.index]


def index_targets(target: Index | None, images: int) -> list[Target] | None:
    """One target an image.

    Args:
        target: an integer, or a tuple of integers with one for each dimension of an image's output: this entry in all
            of the images. A list of these, or a tensor of integers `(B,)`: one an image. None: None.
        images: how many there are.

    Raises:
        TypeError, ValueError: anything else, or as many targets as there are no images.
    """
    if target is None:
        return None
    given: Any = target
    if isinstance(given, (Tensor, np.ndarray)):
        given = _of_array(given)
    if not isinstance(given, list):
        return [OutputEntryTarget(_indices(given))] * images
    if len(given) != images:
        raise ValueError(
            f"got {len(given)} targets for {images} images: name one an image, or an integer for all of them"
        )
    return [OutputEntryTarget(_indices(one)) for one in given]


def _of_array(array: Tensor | NDArray[Any]) -> Any:
    """A tensor's targets as numbers; one element stands for all of the images, as in captum."""
    if array.ndim > 1:
        raise ValueError(f"a tensor of targets must be (B,), got shape {tuple(array.shape)}")
    values = array.reshape(-1).tolist()
    return values[0] if len(values) == 1 else values


def _indices(one: Any) -> tuple[int, ...]:
    indices = one if isinstance(one, tuple) else (one,)
    if not indices or not all(isinstance(i, Integral) and not isinstance(i, bool) for i in indices):
        raise TypeError(f"a target must be a class index or a tuple of indices, got {one!r}")
    return tuple(int(i) for i in indices)
