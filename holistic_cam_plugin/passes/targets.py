"""The score that is explained: the targets of each image, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from holistic_cam_plugin.passes.outputs import Outputs

__all__ = [
    "Target",
    "Targets",
    "check_dependence",
    "check_targets",
    "decided_targets",
    "predicted_targets",
    "scores",
    "target_score",
    "targets_of_images",
    "total_score",
]

# A target maps one image's output to a scalar, as in `pytorch_grad_cam.utils.model_targets`.
Target: TypeAlias = Callable[[Tensor], Tensor]
# One target an image, or one list of targets an image.
Targets: TypeAlias = Sequence[Target] | Sequence[Sequence[Target]]


def check_targets(targets: Sequence[Target] | None, images: int) -> None:
    """Raise TypeError or ValueError unless `targets` is None or holds one callable an image."""
    if targets is None:
        return
    if isinstance(targets, (str, bytes, dict)) or not isinstance(targets, Sequence):
        raise TypeError(
            "targets must be None or a list with one target an image, such as "
            f"[ClassifierOutputTarget(281)], got {targets!r}"
        )
    if len(targets) != images:
        raise ValueError(f"got {len(targets)} targets for {images} images: name one target an image")
    for target in targets:
        if not callable(target):
            raise TypeError(f"every target must be callable, such as ClassifierOutputTarget(281), got {target!r}")


def targets_of_images(targets: Targets | None, images: int) -> list[list[Target]] | None:
    """A list of targets for each image, of one target an image or of one list of them an image.

    Raises:
        TypeError, ValueError: as `check_targets`, and for an image without targets.
    """
    if isinstance(targets, (list, tuple)) and targets and all(isinstance(some, (list, tuple)) for some in targets):
        lists = [list(some) for some in targets]
        if len(lists) != images:
            raise ValueError(f"got {len(lists)} lists of targets for {images} images: name one list an image")
        for image, some in enumerate(lists):
            if not some:
                raise ValueError(f"the list of targets of image {image} is empty: name at least one target an image")
            check_targets(some, len(some))
        return lists
    check_targets(targets, images)  # type: ignore[arg-type]
    return None if targets is None else [[target] for target in targets]  # type: ignore[list-item]


def decided_targets(targets: Sequence[Sequence[Target]] | None, outputs: Outputs) -> Sequence[Sequence[Target]]:
    """The targets of each image; None: its best-scoring class in these outputs, those of the untouched images."""
    return [[target] for target in predicted_targets(outputs)] if targets is None else targets


def predicted_targets(outputs: Outputs) -> list[Target]:
    """The best-scoring class of each image: what `targets=None` means.

    Args:
        outputs: `(B, classes)`.

    Raises:
        ValueError: any other shape, or detections; the message names the target to pass.
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
        remedy = "pass targets=[...], one callable an image that maps its output to a scalar"
    raise ValueError(f"targets=None needs an output of shape (B, classes), the model returned {shape}: {remedy}")


def target_score(target: Target, output: Tensor) -> Tensor:
    """The score of one image, a tensor without dimensions; ValueError if the target gives anything but one value."""
    score = target(output)
    if not isinstance(score, Tensor) or score.numel() != 1:
        given = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else repr(score)
        raise ValueError(f"target {target!r} must give one value an image, as a tensor, got {given}")
    return score.reshape(())


def scores(targets: Sequence[Sequence[Target]], outputs: Iterable[Any]) -> list[Tensor]:
    """For every k, the sum over the images of the k-th target's score; an image with fewer targets is left out.

    Args:
        targets: a list of targets for each image.
        outputs: the model's output, a row an image.

    Raises:
        ValueError: a target gives more than one value.
    """
    pairs = list(zip(targets, outputs, strict=True))
    chosen = [[(some[k], row) for some, row in pairs if k < len(some)] for k in range(max(map(len, targets)))]
    return [_sum(*zip(*some, strict=True)) for some in chosen]


def total_score(targets: Sequence[Target], outputs: Iterable[Tensor]) -> Tensor:
    """Sum over the images of each target's score; an image's gradient depends on its own score alone.

    Raises:
        ValueError: a target gives more than one value, or a score that does not depend on the target layers.
    """
    total = _sum(targets, outputs)
    check_dependence(total)
    return total


def check_dependence(total: Tensor) -> None:
    """Raise ValueError unless the score is part of a graph."""
    if not total.requires_grad:
        raise ValueError("the targets' score does not depend on the target layers: nothing to explain")


def _sum(targets: Sequence[Target], outputs: Iterable[Any]) -> Tensor:
    return torch.stack([target_score(target, output) for target, output in zip(targets, outputs, strict=True)]).sum()
