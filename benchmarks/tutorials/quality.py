"""How good the tutorials' networks are on scenes that they never saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.tutorials.models import Samples

__all__ = ["digits_found", "mean_iou"]

_CHUNK = 10  # scenes at a time
_IOU = 0.5
_SCORE = 0.5


@torch.no_grad()
def digits_found(model: Any, samples: Samples) -> Tensor:
    """Which digits of the scenes the network finds, `(N, 2)`, bool.

    A segmentation finds those whose pixels it names with an IoU over 0.5, a detector those that a box of their class
    and of a score over 0.5 covers with an IoU over 0.5, a classifier those among its two best classes.
    """
    found = []
    for chosen in torch.arange(len(samples.images)).split(_CHUNK):
        images, some = samples.batch(chosen)
        outputs = model(images)
        if isinstance(outputs, list):
            rows = [_detected(one, *true) for one, *true in zip(outputs, some.labels, some.boxes, strict=True)]
        elif isinstance(outputs, dict):
            classes = outputs["out"].argmax(dim=1)
            rows = [_segmented(*one) for one in zip(classes, some.masks, some.labels, strict=True)]
        else:
            rows = list((outputs.topk(2).indices[:, None] == some.labels[:, :, None]).any(dim=2))
        found += rows
    return torch.stack(found)


@torch.no_grad()
def mean_iou(model: Any, samples: Samples) -> float:
    """Intersection over union of the pixels of each digit's class in all scenes, mean over the classes."""
    pairs = []
    for chosen in torch.arange(len(samples.images)).split(_CHUNK):
        images, some = samples.batch(chosen)
        pairs.append((model(images)["out"].argmax(dim=1), some.masks))
    given, true = (torch.cat(masks) for masks in zip(*pairs, strict=True))
    ious = []
    for label in samples.labels.unique() + 1:
        both, either = (given == label) & (true == label), (given == label) | (true == label)
        ious.append(both.sum() / either.sum())
    return float(torch.stack(ious).mean())


def _detected(output: dict[str, Tensor], labels: Tensor, boxes: Tensor) -> Tensor:
    right = output["labels"] == labels[:, None] + 1
    near = box_iou(boxes, output["boxes"]) > _IOU
    found: Tensor = right & near & (output["scores"] > _SCORE)
    return found.any(dim=1)


def _segmented(classes: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    given, true = (one == labels[:, None, None] + 1 for one in (classes, mask))
    return (given & true).sum(dim=(1, 2)) > _IOU * (given | true).sum(dim=(1, 2))
