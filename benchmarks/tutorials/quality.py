"""Accuracy of the tutorials' networks on held-out scenes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.tutorials.models import Samples

__all__ = ["find_digits", "mean_iou"]

_CHUNK = 10  # scenes per batch
_IOU = 0.5
_SCORE = 0.5


@torch.no_grad()
def find_digits(model: Any, samples: Samples) -> Tensor:
    """Find the digits that the network recognises, `(N, 2)`, bool.

    A segmentation network must segment the digit with an IoU over 0.5, a detector must have a box of its class with a
    score and an IoU over 0.5, a classifier must have it among its two best classes.
    """
    found = []
    for chosen in torch.arange(len(samples.images)).split(_CHUNK):
        images, some = samples.batch(chosen)
        outputs = model(images)
        if isinstance(outputs, list):
            rows = [_match_boxes(one, *true) for one, *true in zip(outputs, some.labels, some.boxes, strict=True)]
        elif isinstance(outputs, dict):
            classes = outputs["out"].argmax(dim=1)
            rows = [_match_pixels(*one) for one in zip(classes, some.masks, some.labels, strict=True)]
        else:
            rows = list((outputs.topk(2).indices[:, None] == some.labels[:, :, None]).any(dim=2))
        found += rows
    return torch.stack(found)


@torch.no_grad()
def mean_iou(model: Any, samples: Samples) -> float:
    """Intersection over union of each class's pixels in all scenes, mean over the digits' classes."""
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


def _match_boxes(output: dict[str, Tensor], labels: Tensor, boxes: Tensor) -> Tensor:
    right = output["labels"] == labels[:, None] + 1
    near = box_iou(boxes, output["boxes"]) > _IOU
    found: Tensor = right & near & (output["scores"] > _SCORE)
    return found.any(dim=1)


def _match_pixels(classes: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    given, true = (one == labels[:, None, None] + 1 for one in (classes, mask))
    return (given & true).sum(dim=(1, 2)) > _IOU * (given | true).sum(dim=(1, 2))
