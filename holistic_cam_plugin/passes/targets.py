"""The scores that are explained: the targets of each image, and their sums over the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from holistic_cam_plugin.passes.outputs import Outputs

__all__ = [
    "INDEPENDENT",
    "Target",
    "Targets",
    "check_targets",
    "list_targets",
    "predict_targets",
    "sum_scores",
    "target_score",
    "total_score",
]

INDEPENDENT = "the targets' score does not depend on the target layers: nothing to explain"

# A target maps one image's output to a scalar, as in `pytorch_grad_cam.utils.model_targets`.
Target: TypeAlias = Callable[[Tensor], Tensor]
# One target per image, or one list of targets per image.
Targets: TypeAlias = Sequence[Target] | Sequence[Sequence[Target]]


def check_targets(targets: Sequence[Target] | None, images: int) -> None:
    """Raise TypeError or ValueError unless `targets` is None or holds one callable per image."""
    if targets is None:
        return
    if isinstance(targets, (str, bytes, dict)) or not isinstance(targets, Sequence):
        raise TypeError(
            "targets must be None or a list with one target per image, such as "
            f"[ClassifierOutputTarget(281)], got {targets!r}"
        )
    if len(targets) != images:
        raise ValueError(f"got {len(targets)} targets for {images} images: pass one target per image")
    for target in targets:
        if not callable(target):
            raise TypeError(f"every target must be callable, such as ClassifierOutputTarget(281), got {target!r}")


def list_targets(targets: Targets | None, images: int) -> list[list[Target]] | None:
    """Turn one target per image, or one list of targets per image, into a list of targets for each image.

    Raises:
        TypeError, ValueError: as `check_targets`, and for an image without targets.
    """
    if isinstance(targets, (list, tuple)) and targets and all(isinstance(some, (list, tuple)) for some in targets):
        lists = [list(some) for some in targets]
        if len(lists) != images:
            raise ValueError(f"got {len(lists)} lists of targets for {images} images: pass one list per image")
        for image, some in enumerate(lists):
            if not some:
                raise ValueError(f"the list of targets of image {image} is empty: pass at least one target per image")
            check_targets(some, len(some))
        return lists
    check_targets(targets, images)  # type: ignore[arg-type]
    return None if targets is None else [[target] for target in targets]  # type: ignore[list-item]


def predict_targets(outputs: Outputs) -> list[Target]:
    """The target of each image's best-scoring class, which `targets=None` means.

    Args:
        outputs: `(B, classes)`.

    Raises:
        ValueError: another shape, or detections; the message names the target to pass.
    """
    if isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 0:
        return [ClassifierOutputTarget(category) for category in outputs.detach().argmax(dim=-1).tolist()]
    if not isinstance(outputs, Tensor):
        keys = sorted(outputs[0])
        raise ValueError(
            f"targets=None needs an output of shape (B, classes), the model returned dicts with the keys {keys}: for "
            "detection pass targets=[FasterRCNNBoxScoreTarget(labels, boxes), ...]"
        )
    shape = tuple(outputs.shape)
    if outputs.ndim == 4:
        remedy = "for semantic segmentation pass targets=[SemanticSegmentationTarget(category, mask), ...]"
    else:
        remedy = "pass targets=[...], one callable per image that maps its output to a scalar"
    raise ValueError(f"targets=None needs an output of shape (B, classes), the model returned {shape}: {remedy}")


def target_score(target: Target, output: Tensor) -> Tensor:
    """The score of one image, a 0-dimensional tensor; ValueError unless the target returns one value."""
    score = target(output)
    if not isinstance(score, Tensor) or score.numel() != 1:
        given = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else repr(score)
        raise ValueError(f"target {target!r} must return one value per image, as a tensor, got {given}")
    return score.reshape(())


def sum_scores(targets: Sequence[Sequence[Target]], outputs: Iterable[Any]) -> list[Tensor]:
    """Sum, for every k, the scores of the images' k-th targets; images with fewer targets are left out.

    Args:
        targets: a list of targets for each image.
        outputs: the model's output, one row per image.

    Raises:
        ValueError: a target returns more than one value.
    """
    pairs = list(zip(targets, outputs, strict=True))
    chosen = [[(some[k], row) for some, row in pairs if k < len(some)] for k in range(max(map(len, targets)))]
    return [_sum(*zip(*some, strict=True)) for some in chosen]


def total_score(targets: Sequence[Target], outputs: Iterable[Tensor]) -> Tensor:
    """Sum the scores of all images; the gradient of each image depends on its own score only.

    Raises:
        ValueError: a target returns more than one value, or a score that does not depend on the target layers.
    """
    total = _sum(targets, outputs)
    if not total.requires_grad:
        raise ValueError(INDEPENDENT)
    return total


def _sum(targets: Sequence[Target], outputs: Iterable[Any]) -> Tensor:
    return torch.stack([target_score(target, output) for target, output in zip(targets, outputs, strict=True)]).sum()
