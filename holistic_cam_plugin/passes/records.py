"""Records of what the target layers returned, and the reshape transform that turns them into maps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from holistic_cam_plugin.passes.refusals import LayerError

__all__ = ["Record", "ReshapeError", "Reshaping", "holds_tensors", "like", "tensors_of"]

# One tensor, or several that a reshape transform joins: a dict (feature pyramids), list or tuple of tensors.
Record: TypeAlias = Tensor | Mapping[str, Tensor] | Sequence[Tensor]


class ReshapeError(ValueError):
    """A reshape transform refuses what the target layer returns at this size of the image."""


class Reshaping:
    """Applies a reshape transform to activations and gradients.

    Args:
        transform: as in pytorch-grad-cam; None: the layer's own tensor. If it has a parameter `image_size`, it gets the
            size in pixels of the images that the model sees: `(height, width)` or `(depth, height, width)`.
    """

    def __init__(self, transform: Callable[..., Any] | None) -> None:
        self.transform = transform
        self._takes_size = transform is not None and _has_parameter(transform, "image_size")

    def maps(self, record: Record, size: tuple[int, ...]) -> Any:
        """Transform a record; the maps are detached.

        Args:
            record: what the layer returned.
            size: of the images.

        Raises:
            LayerError: the transform misses a tensor of the layer's output.
            ReshapeError: the transform fails.
        """
        tensors = [tensor.detach() for tensor in tensors_of(record)]
        if self.transform is None:
            return like(record, tensors)
        keywords = {"image_size": size} if self._takes_size else {}
        try:
            # In the contiguous format: the transform may `view` them.
            return self.transform(like(record, [tensor.contiguous() for tensor in tensors]), **keywords)
        except KeyError as error:
            keys = ", ".join(map(repr, record)) if isinstance(record, Mapping) else f"a {type(record).__name__}"
            raise LayerError(
                f"the reshape transform finds no {error} in the target layer's output, which has {keys}: for a feature "
                "pyramid pass reshape_transform=holistic_cam_plugin.fpn_reshape_transform"
            ) from error
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ReshapeError(str(error)) from error

    def signed_maps(self, record: Record, gradients: Sequence[Tensor | None], size: tuple[int, ...]) -> Any:
        """Transform a gradient.

        A transform may take magnitudes, as pytorch-grad-cam's for Faster R-CNN does. So positive and negative gradients
        are transformed separately, and keep their sign.

        Args:
            record: what the layer returned.
            gradients: one for each of its tensors; None: zero.
            size: of the images.
        """
        parts = [torch.zeros_like(t) if g is None else g for t, g in zip(tensors_of(record), gradients, strict=True)]
        if self.transform is None:
            return self.maps(like(record, parts), size)
        positive, negative = ([(sign * part).clamp(min=0) for part in parts] for sign in (1, -1))
        return self.maps(like(record, positive), size) - self.maps(like(record, negative), size)


def holds_tensors(output: Any) -> bool:
    """Whether this is a dict, list or tuple that holds tensors only."""
    return isinstance(output, (dict, list, tuple)) and all(isinstance(part, Tensor) for part in tensors_of(output))


def tensors_of(record: Record) -> list[Tensor]:
    """The tensors of a record, in order."""
    if isinstance(record, Tensor):
        return [record]
    return list(record.values() if isinstance(record, Mapping) else record)


def like(record: Record, tensors: Sequence[Tensor]) -> Record:
    """The tensors in a structure of the record's type."""
    if isinstance(record, Tensor):
        return tensors[0]
    structure: Any = type(record)
    if isinstance(record, Mapping):
        made: Record = structure(zip(record, tensors, strict=True))
    else:
        made = structure(*tensors) if hasattr(record, "_fields") else structure(tensors)
    return made


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in
        return False
