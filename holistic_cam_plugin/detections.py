"""Detectors: what they return as torchvision's detections, and the score of a box as a target.

torchvision's detectors return a list of dicts, one an image, with `boxes` in pixels of the image that they got.
`HolisticCAM` brings such boxes back to the untouched image at every scale. Two thin modules give other detectors this
form, gradients flowing; `BoxScoreTarget` follows a box through the scales by its overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

__all__ = ["BoxScoreTarget", "DETRDetections", "YOLODetections"]

ACTIVATIONS = ("softmax", "sigmoid")
BOX_FORMATS = ("xyxy", "xywh", "cxcywh")


class DETRDetections(nn.Module):
    """A DETR, its queries as detections: for each image a dict of `boxes` `(Q, 4)`, `labels` `(Q,)`, `scores` `(Q,)`.

    Args:
        model: returns a dict or a `ModelOutput` with `logits` (or `pred_logits`) `(B, Q, K)` and `pred_boxes`
            `(B, Q, 4)`, in parts of the image's width and height: `transformers`' DETR, RT-DETR, Deformable DETR, ...
        activation: of the logits: `"softmax"`, where the last class means that there is no object (DETR), or
            `"sigmoid"` (RT-DETR, Deformable DETR). None: softmax if the model has one logit more than
            `model.config.num_labels`.
        box_format: as in `torchvision.ops.box_convert`.

    Raises:
        ValueError: an unknown activation or box format; a model without `config.num_labels` needs an activation.
    """

    def __init__(self, model: nn.Module, activation: str | None = None, box_format: str = "cxcywh") -> None:
        super().__init__()
        num_labels: Any = getattr(getattr(model, "config", None), "num_labels", None)
        if activation is None and num_labels is None:
            raise ValueError('the model has no config.num_labels: name its activation="softmax" or "sigmoid"')
        if activation not in (None, *ACTIVATIONS):
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.model = model
        self.activation = activation
        self.num_labels = num_labels
        self.box_format = _checked_format(box_format)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detections of images `(B, 3, H, W)`: boxes x0, y0, x1, y1 in their pixels, each with its best class."""
        outputs: Any = self.model(images)
        logits = outputs["pred_logits" if "pred_logits" in outputs else "logits"]
        height, width = images.shape[-2:]
        boxes = outputs["pred_boxes"]
        boxes = box_convert(boxes * boxes.new_tensor([width, height, width, height]), self.box_format, "xyxy")
        activation = self.activation or ("softmax" if logits.shape[-1] == self.num_labels + 1 else "sigmoid")
        return _detections(boxes, logits.softmax(-1)[..., :-1] if activation == "softmax" else logits.sigmoid())


class YOLODetections(nn.Module):
    """A YOLO, all that its exports return as detections: for each image `boxes` `(N, 4)`, `labels`, `scores` `(N,)`.

    Nothing is suppressed: `torchvision.ops.batched_nms` picks the boxes to explain.

    Args:
        model: returns `(B, 4 + classes, N)`: for each of N places a box in pixels of the image that it got, and the
            probability of each class. Of a tuple or list the first is taken.
        box_format: as in `torchvision.ops.box_convert`.

    Raises:
        ValueError: an unknown box format.
    """

    def __init__(self, model: nn.Module, box_format: str = "cxcywh") -> None:
        super().__init__()
        self.model = model
        self.box_format = _checked_format(box_format)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detections of images `(B, 3, H, W)`: boxes x0, y0, x1, y1 in their pixels, each with its best class.

        Raises:
            ValueError: another shape than `(B, 4 + classes, N)`.
        """
        outputs: Any = self.model(images)
        if isinstance(outputs, (tuple, list)):
            outputs = outputs[0]
        if not isinstance(outputs, Tensor) or outputs.ndim != 3 or not 4 < outputs.shape[1] < outputs.shape[2] + 4:
            given = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise ValueError(f"a YOLO must return (B, 4 + classes, N), boxes before classes, got {given}")
        boxes, probabilities = outputs.transpose(1, 2).split([4, outputs.shape[1] - 4], dim=-1)
        return _detections(box_convert(boxes, self.box_format, "xyxy"), probabilities)


class BoxScoreTarget:
    """The score of boxes, wherever the detections of an image have them: their sum.

    At every scale a box is the detection of its label that overlaps it by more than `iou_threshold` and has the highest
    product of overlap and score. Where none does, it counts as zero. (The library's `FasterRCNNBoxScoreTarget` takes
    the highest overlap whatever the label, and adds the overlap to the score.)

    Args:
        boxes: `(n, 4)` in pixels of the untouched image.
        labels: `(n,)`.
        box_format: as in `torchvision.ops.box_convert`.
        iou_threshold: in [0, 1).

    Raises:
        ValueError: no box, boxes that are not `(n, 4)`, another number of labels, an unknown format.
    """

    def __init__(
        self,
        boxes: Tensor | Sequence[Tensor] | Sequence[Sequence[float]],
        labels: Tensor | Sequence[int],
        box_format: str = "xyxy",
        iou_threshold: float = 0.5,
    ) -> None:
        rows = [torch.as_tensor(box, dtype=torch.float32).detach() for box in boxes]
        given = torch.stack(rows) if rows else torch.zeros(0, 4)
        if given.ndim != 2 or given.shape[1] != 4 or not len(given):
            raise ValueError(f"boxes must be (n, 4), at least one, got shape {tuple(given.shape)}")
        if len(labels) != len(given):
            raise ValueError(f"got {len(given)} boxes and {len(labels)} labels: name one label a box")
        self.boxes = box_convert(given, _checked_format(box_format), "xyxy")
        self.labels = [int(label) for label in labels]
        self.iou_threshold = iou_threshold

    def __call__(self, found: dict[str, Tensor]) -> Tensor:
        """The score, a tensor without dimensions, of one image's `boxes`, `labels` and `scores`."""
        scores = found["scores"]
        overlaps = box_iou(self.boxes.to(found["boxes"]), found["boxes"].detach())
        total = scores.new_zeros(())
        for label, overlap in zip(self.labels, overlaps, strict=True):
            fits = (overlap > self.iou_threshold) & (found["labels"] == label)
            if fits.any():
                total = total + scores[(fits * overlap * scores.detach()).argmax()]
        return total


def _detections(boxes: Tensor, probabilities: Tensor) -> list[dict[str, Tensor]]:
    """One dict an image of `(B, N, 4)` and `(B, N, classes)`."""
    scores, labels = probabilities.max(dim=-1)
    found = zip(boxes, labels, scores, strict=True)
    return [{"boxes": own, "labels": classes, "scores": best} for own, classes, best in found]


def _checked_format(box_format: str) -> str:
    if box_format not in BOX_FORMATS:
        raise ValueError(f"box_format must be one of {', '.join(BOX_FORMATS)}, got {box_format!r}")
    return box_format
