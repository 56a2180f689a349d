"""Scores of perturbed copies of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin.passes.model_state import eval_mode
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, target_score

__all__ = ["Score", "check_scores", "class_probability", "score_copies"]

# Maps the model's outputs to the scores that the targets select from, one row per image.
Score: TypeAlias = Callable[[Tensor], Tensor]


def class_probability(outputs: Tensor) -> Tensor:
    """Softmax probabilities of class scores, so that `ClassifierOutputTarget(c)` selects the probability of class c.

    Args:
        outputs: `(B, classes)`.

    Returns:
        `(B, classes)`, float32 or float64; every row sums to 1.

    Raises:
        ValueError: `outputs` has another shape.

    Example:
        >>> class_probability(torch.zeros(1, 4))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    if outputs.ndim != 2:
        raise ValueError(
            f"class probabilities need outputs of shape (B, classes), the model returned {tuple(outputs.shape)}: pass "
            "score=, a function of the outputs, such as score=torch.sigmoid"
        )
    return outputs.float().softmax(dim=-1)


def score_copies(
    model: nn.Module, copies: Iterable[tuple[Target, Tensor]], score: Score, batch_size: int
) -> NDArray[np.float64]:
    """Score perturbed copies of images in batches, in evaluation mode and without gradients.

    Args:
        model: maps images to a tensor with one row per image; its training flags are restored.
        copies: pairs of a target and an image `(C, H, W)` on the model's device; consumed lazily, `batch_size` at a
            time.
        score: maps the model's outputs to the scores that the targets select from.
        batch_size: images per forward pass.

    Returns:
        One score per copy, in order, float64.

    Raises:
        TypeError, ValueError: the outputs are not a tensor with one row per image, a target does not return a single
            value, or a score is NaN.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> copies = ((lambda row: row[1], level * torch.ones(3, 8, 8)) for level in (0.0, 0.5, 1.0))
        >>> score_copies(model, copies, score=torch.nn.Identity(), batch_size=2)
        array([0. , 0.5, 1. ])
    """
    remaining = iter(copies)
    values: list[float] = []
    with eval_mode(model), torch.inference_mode():
        while batch := list(islice(remaining, batch_size)):
            images = torch.stack([image for _, image in batch])
            scores = score(check_outputs(model(images), len(batch)))
            single = [target_score(target, row).double() for (target, _), row in zip(batch, scores, strict=True)]
            values += torch.stack(single).tolist()  # one transfer per batch
            check_scores(values[-len(batch) :])
    return np.array(values, dtype=np.float64)


def check_scores(values: Iterable[float]) -> None:
    """Raise ValueError if a score is NaN."""
    if any(map(math.isnan, values)):
        raise ValueError("a score is NaN: the model returned NaN for an image or for a perturbed copy of it")
