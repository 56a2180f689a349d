"""Check that a model's output for an image does not depend on the other images of its batch."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.models.probe import SIZE_ERRORS

__all__ = ["check_batch", "trust_batch"]

# Largest difference, relative to the largest output: bfloat16 rounds to 0.4 %.
_ROUNDING = 0.05

# For each model that was checked, how many rows it returns for two images, and whether these depend on one another.
_checked: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()


def trust_batch(model: nn.Module) -> None:
    """Remember that this model returns independent rows."""
    _checked[model] = (2, False)


def check_batch(model: nn.Module, images: Tensor, *, together: bool) -> None:
    """Check each model once: run it on two images, together and alone.

    Args:
        images: `(B, C, H, W)` or `(B, C, D, H, W)`, on the model's device; the first one is used.
        together: whether several images will pass through the model at a time.

    Raises:
        ValueError: the model returns one output for all images, or its output for an image depends on the others.
    """
    if model not in _checked:
        with preserve_model(model):
            _checked[model] = _compare(model, images[:1])
    rows, mixes = _checked[model]
    if rows == 1:
        raise ValueError(
            "the model returns one row for several images, as if they were a bag: each map would be of an image alone. "
            "Pass one image per call, or wrap the model so that the bag is one input of which it makes one map"
        )
    if mixes and together:
        raise ValueError(
            "the model's output for an image depends on the other images of its batch, and its map would, too: pass "
            "one image per call, or batch_size=1"
        )


def _compare(model: nn.Module, image: Tensor) -> tuple[int, bool]:
    # The maximum, the mean and the spread of the batch change, too.
    pair = torch.cat([image, 0.5 - 2 * image.flip(-1)])
    try:
        both = model(pair)
        if not isinstance(both, Tensor) or both.ndim == 0 or len(both) != 2:
            return (len(both) if isinstance(both, Tensor) and both.ndim > 0 else 2), False
        alone = torch.cat([model(one) for one in pair.split(1)])
        # The model itself may be random.
        return 2, _differ(both, alone) and not _differ(torch.cat([model(one) for one in pair.split(1)]), alone)
    except (*SIZE_ERRORS, MemoryError):  # what is wrong with the model shows in the passes that follow
        return 2, False


def _differ(rows: Tensor, others: Tensor) -> bool:
    """Whether one of the rows differs from the other one's."""
    if rows.shape != others.shape:
        return True
    return any(
        not torch.allclose(row, other, rtol=0, atol=_ROUNDING * float(other.abs().max()), equal_nan=True)
        for row, other in zip(rows, others, strict=True)
    )
