"""What a model may refuse: a layer, a size, a layout in memory.

Each gets an error that says what to do, or a way round. Everything else that is raised in a pass, by the model or by a
target, reaches the caller as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from holistic_cam_plugin.passes.records import ReshapeError

__all__ = ["LayerError", "LayoutError", "layout_watched", "out_of_memory", "refusal_explained"]

# What PyTorch and custom operators say of a layout that they don't take.
_LAYOUT = re.compile(r"contiguous|strides?\b|memory.?format|channels.?last|\bview\b|layout", re.IGNORECASE)


# How PyTorch, NumPy and OpenCV say that memory ran out, where they have no type of their own for it.
_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "unable to allocate",
    "insufficient memory",
    "memoryerror",
    "bad_alloc",
)


class LayerError(ValueError):
    """A target layer that can't be explained, at whatever size of the image."""


class LayoutError(Exception):
    """The model does not take images whose channels lie last in memory; never seen by a user."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out, on a GPU or on a CPU, in an error of its own or of what wraps it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(phrase in str(error).lower() for phrase in _MEMORY)


@contextmanager
def layout_watched(watched: bool) -> Iterator[None]:
    """Raise what the model says of its images' layout in memory as LayoutError; where not `watched`, as it is."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        wordless = isinstance(error, AssertionError) and not str(error)  # `assert x.is_contiguous()`
        if watched and (wordless or _LAYOUT.search(str(error))) and not isinstance(error, LayerError):
            raise LayoutError from error
        raise


@contextmanager
def refusal_explained(size: tuple[int, ...], native: tuple[int, ...]) -> Iterator[None]:
    """Turn what a model or a reshape transform raises at a resized image alone into an error that names the remedy.

    Raises:
        ValueError: instead of what was raised inside, unless the image has its native size or memory ran out.
    """
    try:
        yield
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if size == native or isinstance(error, (LayerError, LayoutError)) or out_of_memory(error):
            raise
        at, instead = ("x".join(map(str, sides)) for sides in (native, size))
        reason = str(error) or type(error).__name__
        told = f"the image passes at {at} px but not at the pyramid's {instead} px ({reason}). "
        if isinstance(error, ReshapeError):
            told += (
                "The reshape transform has a fixed size: give holistic_cam_plugin.vit_reshape_transform or "
                "swin_reshape_transform, which follow the image's size"
            )
        else:
            told += (
                "A model of fixed size needs tiles=True, or num_scales=1 without sizes, or sizes=[...] that it accepts"
            )
        raise ValueError(told) from error
