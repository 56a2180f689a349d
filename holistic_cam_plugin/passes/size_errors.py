"""Errors of models and reshape transforms at the pyramid's sizes, with what can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holistic_cam_plugin.errors import MODEL_ERRORS, describe_error, out_of_memory
from holistic_cam_plugin.passes.records import ReshapeError
from holistic_cam_plugin.passes.refusals import LayerError

__all__ = ["size_errors"]

# Sides of patches and of the deepest cells, in pixels, whose multiples many models take; the largest first.
STEPS = (32, 28, 16, 14, 8)


@contextmanager
def size_errors(size: tuple[int, ...], original: tuple[int, ...], tiles: bool) -> Iterator[None]:
    """Raise what the model or a reshape transform raises at a resized image as a ValueError that names the remedy.

    Args:
        size: of the image that the model sees, in pixels.
        original: of the original image; its own errors are raised as they are.
        tiles: whether tiles can be a remedy.
    """
    try:
        yield
    except MODEL_ERRORS as error:
        if size == original or isinstance(error, LayerError) or out_of_memory(error):
            raise
        at, instead = ("x".join(map(str, sides)) for sides in (original, size))
        failure = f"the model takes images of {at} px but not the pyramid's {instead} px ({describe_error(error)}). "
        if isinstance(error, ReshapeError):
            remedy = (
                "The reshape transform has a fixed size: pass holistic_cam_plugin.vit_reshape_transform or "
                "swin_reshape_transform, which follow the image's size"
            )
        else:
            remedy = f"Pass {', or '.join(_list_remedies(size, original, tiles))}"
        raise ValueError(failure + remedy) from error


def _list_remedies(size: tuple[int, ...], original: tuple[int, ...], tiles: bool) -> Iterator[str]:
    """What to pass for a model that takes the original size but not this one."""
    if tiles:
        yield "tiles=True for a model of fixed size"
    for step in STEPS:
        if all(side % step == 0 for side in original[-2:]) and any(side % step for side in size[-2:]):
            yield f"multiple_of={step} for one that takes multiples of {step} px"
            break
    yield "num_scales=1 without sizes"
    yield "sizes=[...] that it takes"
