"""Detectors: wrappers that return torchvision's detections, and the score of boxes as a target.

torchvision's detectors return a list of one dict per image, with `boxes` in pixels of the input. At every scale,
`HolisticCAM` converts the boxes to pixels of the original image. Two wrappers give other detectors this form, with
gradients; `BoxScoreTarget` identifies a box at every scale by its overlap.
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
    """Wrapper of a DETR that returns its queries as detections.

    Args:
        model: returns a dict or a `ModelOutput` with `logits` (or `pred_logits`) `(B, Q, K)` and `pred_boxes`
            `(B, Q, 4)`, relative to the image's width and height, as DETR, RT-DETR and Deformable DETR of
            `transformers` do.
        activation: of the logits: `"softmax"`, if the last class means that there is no object (DETR), or `"sigmoid"`
            (RT-DETR, Deformable DETR). None: softmax if the model has one logit more than `model.config.num_labels`.
        box_format: as in `torchvision.ops.box_convert`.

    Raises:
        ValueError: `activation` or `box_format` is unknown, or `activation` is None and the model has no
            `config.num_labels`.

    Example:
        >>> class DETR(nn.Module):
        ...     def forward(self, images):
        ...         return {"logits": torch.rand(len(images), 100, 92), "pred_boxes": torch.rand(len(images), 100, 4)}
        >>> [found] = DETRDetections(DETR(), activation="softmax")(torch.rand(1, 3, 64, 96))
        >>> found["boxes"].shape, found["labels"].shape, found["scores"].shape
        (torch.Size([100, 4]), torch.Size([100]), torch.Size([100]))
    """

    def __init__(self, model: nn.Module, activation: str | None = None, box_format: str = "cxcywh") -> None:
        super().__init__()
        num_labels: Any = getattr(getattr(model, "config", None), "num_labels", None)
        if activation is None and num_labels is None:
            raise ValueError('the model has no config.num_labels: pass activation="softmax" or activation="sigmoid"')
        if activation not in (None, *ACTIVATIONS):
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.model = model
        self.activation = activation
        self.num_labels = num_labels
        self.box_format = _check_format(box_format)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detect objects in images `(B, 3, H, W)`.

        Returns:
            One dict per image: `boxes` `(Q, 4)`, x_min, y_min, x_max, y_max in pixels, and the best class of each box
            as `labels` `(Q,)` and `scores` `(Q,)`.
        """
        outputs: Any = self.model(images)
        logits = outputs["pred_logits" if "pred_logits" in outputs else "logits"]
        height, width = images.shape[-2:]
        boxes = outputs["pred_boxes"]
        boxes = box_convert(boxes * boxes.new_tensor([width, height, width, height]), self.box_format, "xyxy")
        activation = self.activation or ("softmax" if logits.shape[-1] == self.num_labels + 1 else "sigmoid")
        return _to_detections(boxes, logits.softmax(-1)[..., :-1] if activation == "softmax" else logits.sigmoid())


class YOLODetections(nn.Module):
    """Wrapper of an exported YOLO that returns all of its predictions as detections, without suppression.

    Choose the boxes to explain with `torchvision.ops.batched_nms`.

    Args:
        model: returns `(B, 4 + classes, N)`: N boxes in pixels of the input and the probability of each class, or a
            tuple or list that starts with this tensor.
        box_format: as in `torchvision.ops.box_convert`.

    Raises:
        ValueError: `box_format` is unknown.

    Example:
        >>> class YOLO(nn.Module):
        ...     def forward(self, images):
        ...         return torch.rand(len(images), 4 + 80, 8400)
        >>> [found] = YOLODetections(YOLO())(torch.rand(1, 3, 64, 96))
        >>> found["boxes"].shape, found["labels"].shape, found["scores"].shape
        (torch.Size([8400, 4]), torch.Size([8400]), torch.Size([8400]))
    """

    def __init__(self, model: nn.Module, box_format: str = "cxcywh") -> None:
        super().__init__()
        self.model = model
        self.box_format = _check_format(box_format)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detect objects in images `(B, 3, H, W)`; returns as `DETRDetections`.

        Raises:
            ValueError: the model's output is not `(B, 4 + classes, N)`.
        """
        outputs: Any = self.model(images)
        if isinstance(outputs, (tuple, list)):
            outputs = outputs[0]
        if not isinstance(outputs, Tensor) or outputs.ndim != 3 or not 4 < outputs.shape[1] < outputs.shape[2] + 4:
            given = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise ValueError(f"a YOLO must return (B, 4 + classes, N), boxes before classes, got {given}")
        boxes, probabilities = outputs.transpose(1, 2).split([4, outputs.shape[1] - 4], dim=-1)
        return _to_detections(box_convert(boxes, self.box_format, "xyxy"), probabilities)


class BoxScoreTarget:
    """Target of detectors: the sum of the scores of boxes.

    At every scale, a box corresponds to the detection of its label with the highest product of score and overlap,
    among those that overlap it by more than `iou_threshold`; if there is none, it contributes zero. In contrast,
    pytorch-grad-cam's `FasterRCNNBoxScoreTarget` takes the highest overlap whatever the label, and adds the overlap to
    the score.

    Args:
        boxes: `(n, 4)`, in pixels of the original image.
        labels: `(n,)`.
        box_format: as in `torchvision.ops.box_convert`.
        iou_threshold: in [0, 1).

    Raises:
        ValueError: `boxes` is empty or not `(n, 4)`, the number of labels differs, or `box_format` is unknown.

    Example:
        >>> target = BoxScoreTarget(boxes=[[0, 0, 10, 10]], labels=[3])
        >>> boxes, labels, scores = torch.tensor([[0.0, 0, 9, 10]]), torch.tensor([3]), torch.tensor([0.5])
        >>> target({"boxes": boxes, "labels": labels, "scores": scores})
        tensor(0.5000)
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
            raise ValueError(f"boxes and labels must have the same length, got {len(given)} and {len(labels)}")
        self.boxes = box_convert(given, _check_format(box_format), "xyxy")
        self.labels = [int(label) for label in labels]
        self.iou_threshold = iou_threshold

    def __call__(self, found: dict[str, Tensor]) -> Tensor:
        """Compute the score, a scalar, from the `boxes`, `labels` and `scores` of one image."""
        scores = found["scores"]
        overlaps = box_iou(self.boxes.to(found["boxes"]), found["boxes"].detach())
        total = scores.new_zeros(())
        for label, overlap in zip(self.labels, overlaps, strict=True):
            fits = (overlap > self.iou_threshold) & (found["labels"] == label)
            if fits.any():
                total = total + scores[(fits * overlap * scores.detach()).argmax()]
        return total


def _to_detections(boxes: Tensor, probabilities: Tensor) -> list[dict[str, Tensor]]:
    """Convert boxes `(B, N, 4)` and probabilities `(B, N, classes)` to one dict per image."""
    scores, labels = probabilities.max(dim=-1)
    found = zip(boxes, labels, scores, strict=True)
    return [{"boxes": own, "labels": classes, "scores": best} for own, classes, best in found]


def _check_format(box_format: str) -> str:
    if box_format not in BOX_FORMATS:
        raise ValueError(f"box_format must be one of {', '.join(BOX_FORMATS)}, got {box_format!r}")
    return box_format
