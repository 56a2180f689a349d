"""Check that a model's output for an image does not depend on the other images of its batch."""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import Tensor, nn

from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.models.probe import SIZE_ERRORS

__all__ = ["check_batch", "trust_batch"]

# Largest difference, relative to the largest output: bfloat16 rounds to 0.4 %.
_ROUNDING = 0.05

# The models that were checked.
_independent: WeakSet[nn.Module] = WeakSet()


def trust_batch(model: nn.Module) -> None:
    """Remember that this model was checked."""
    _independent.add(model)


def check_batch(model: nn.Module, images: Tensor) -> None:
    """Check each model once: run it on the first image alone, and beside its negative.

    Args:
        images: `(B, C, H, W)` or `(B, C, D, H, W)`, on the model's device.

    Raises:
        ValueError: the output for an image depends on the other images of its batch.
    """
    if model in _independent:
        return
    with preserve_model(model):
        if _mixes_images(model, images[:1]):
            raise ValueError(
                "the model's output for an image depends on the other images of its batch, and its map would, too: "
                "pass one image at a time"
            )
    trust_batch(model)


def _mixes_images(model: nn.Module, image: Tensor) -> bool:
    try:
        beside, alone = model(torch.cat([image, -image])), model(image)
        if not isinstance(beside, Tensor) or not isinstance(alone, Tensor) or len(beside) != 2 or len(alone) != 1:
            return False
        return _differ(beside[:1], alone) and not _differ(model(image), alone)  # the model may be random
    except (*SIZE_ERRORS, MemoryError):  # what is wrong with the model shows in the passes that follow
        return False


def _differ(output: Tensor, other: Tensor) -> bool:
    if output.shape != other.shape:
        return True
    return not torch.allclose(output, other, rtol=0, atol=_ROUNDING * float(other.abs().max()), equal_nan=True)
