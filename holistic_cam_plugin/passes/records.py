"""What a target layer returned, and how a reshape transform makes maps of it and of its gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Record", "ReshapeError", "Reshaping", "holds_tensors", "like", "tensors_of"]

# One tensor or, for a reshape transform to join, several: a dict (feature pyramids), list or tuple of tensors.
Record: TypeAlias = Tensor | Mapping[str, Tensor] | Sequence[Tensor]


class ReshapeError(ValueError):
    """A reshape transform that does not take what the target layer returns at this size of the image."""


class Reshaping:
    """A reshape transform, applied to activations and to gradients.

    Args:
        transform: as in the library; None: the layer's own tensor. If it has a parameter `image_size`, it gets the
            height and width (of volumes the depth, too) in pixels of what goes through the model.
    """

    def __init__(self, transform: Callable[..., Any] | None) -> None:
        self.transform = transform
        self._takes_size = transform is not None and _has_parameter(transform, "image_size")

    def maps(self, record: Record, size: tuple[int, ...]) -> Any:
        """What the transform makes of a record, detached.

        Args:
            record: what the layer returned.
            size: of the image.

        Raises:
            ReshapeError: the transform fails.
        """
        detached = like(record, [tensor.detach() for tensor in tensors_of(record)])
        if self.transform is None:
            return detached
        try:
            return self.transform(detached, **({"image_size": size} if self._takes_size else {}))
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ReshapeError(str(error)) from error

    def signed_maps(self, record: Record, gradients: Sequence[Tensor | None], size: tuple[int, ...]) -> Any:
        """What the transform makes of a gradient.

        A transform may take magnitudes, as the library's for Faster R-CNN does: positive and negative gradients go
        through it by themselves, so that they keep their sign. Where it only moves values about it makes no difference.

        Args:
            record: what the layer returned.
            gradients: one for each of its tensors; None: zero.
            size: of the image.
        """
        parts = [torch.zeros_like(t) if g is None else g for t, g in zip(tensors_of(record), gradients, strict=True)]
        if self.transform is None:
            return self.maps(like(record, parts), size)
        positive, negative = ([(sign * part).clamp(min=0) for part in parts] for sign in (1, -1))
        return self.maps(like(record, positive), size) - self.maps(like(record, negative), size)


def holds_tensors(output: Any) -> bool:
    """Whether this is a dict, list or tuple of tensors and of nothing else."""
    return isinstance(output, (dict, list, tuple)) and all(isinstance(part, Tensor) for part in tensors_of(output))


def tensors_of(record: Record) -> list[Tensor]:
    """The tensors of a record, in order."""
    if isinstance(record, Tensor):
        return [record]
    return list(record.values() if isinstance(record, Mapping) else record)


def like(record: Record, tensors: Sequence[Tensor]) -> Record:
    """The tensors in the places of the record's own, in a structure of its type."""
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
