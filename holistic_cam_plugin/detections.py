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

from holistic_cam_plugin.checks import check_positive_integer, is_integer

__all__ = ["BoxScoreTarget", "DETRDetections", "YOLODetections", "find_num_classes", "is_yolo_output"]

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
    """Wrapper of a YOLO that returns all of its predictions as detections, without suppression.

    Choose the boxes to explain with `torchvision.ops.batched_nms`.

    Args:
        model: returns `(B, 4 + classes, N)`: N boxes in pixels of the input and the probability of each class, or a
            tuple or list that starts with this tensor. Mask coefficients, keypoints or angles after the classes are
            left out; the boxes of an oriented YOLO are those before the rotation.
        box_format: as in `torchvision.ops.box_convert`.
        num_classes: the number of classes. None: the model's own, which `find_num_classes` finds.

    Raises:
        TypeError: `num_classes` is no integer.
        ValueError: `box_format` is unknown, or the number of classes is below 1, or not given and not found.

    Example:
        >>> class YOLO(nn.Module):
        ...     def forward(self, images):
        ...         return torch.rand(len(images), 4 + 80, 8400)
        >>> [found] = YOLODetections(YOLO(), num_classes=80)(torch.rand(1, 3, 64, 96))
        >>> found["boxes"].shape, found["labels"].shape, found["scores"].shape
        (torch.Size([8400, 4]), torch.Size([8400]), torch.Size([8400]))
    """

    def __init__(self, model: nn.Module, box_format: str = "cxcywh", num_classes: int | None = None) -> None:
        super().__init__()
        found = find_num_classes(model) if num_classes is None else num_classes
        if found is None:
            raise ValueError(
                "the model tells no number of classes, and masks, keypoints or an angle may follow them in its output: "
                "pass YOLODetections(model, num_classes=...)"
            )
        check_positive_integer("num_classes", found)
        self.model = model
        self.box_format = _check_format(box_format)
        self.num_classes = found

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detect objects in images `(B, 3, H, W)`; returns as `DETRDetections`.

        Raises:
            ValueError: the model's output is not `(B, 4 + classes, N)`.
        """
        outputs: Any = self.model(images)
        while isinstance(outputs, (tuple, list)) and outputs:
            outputs = outputs[0]
        needed = 4 + self.num_classes
        if not isinstance(outputs, Tensor) or outputs.ndim != 3 or not _holds_classes(outputs, needed):
            given = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise ValueError(
                f"a YOLO must return (B, 4 + classes, N), boxes before {self.num_classes} classes, got {given}"
                f"{_describe_other_form(outputs, self.num_classes)}"
            )
        boxes, probabilities = outputs[:, :needed].transpose(1, 2).split([4, self.num_classes], dim=-1)
        return _to_detections(box_convert(boxes, self.box_format, "xyxy"), probabilities)


def find_num_classes(model: nn.Module) -> int | None:
    """Find the number of classes that a YOLO tells: `nc` of its last module that has one, `names`, or `yaml["nc"]`.

    None if there is none.

    Example:
        >>> class YOLO(nn.Module):
        ...     names = {0: "cat", 1: "dog"}
        >>> find_num_classes(nn.Sequential(YOLO()))
        2
    """
    modules: list[Any] = list(model.modules())[::-1]  # the head comes last
    counts: list[Any] = [getattr(module, "nc", None) for module in modules]
    counts += [len(m.names) for m in modules if isinstance(getattr(m, "names", None), (dict, list, tuple))]
    counts += [m.yaml.get("nc") for m in modules if isinstance(getattr(m, "yaml", None), dict)]
    return next((int(count) for count in counts if is_integer(count) and count > 0), None)


def is_yolo_output(output: Any, model: nn.Module) -> bool:
    """Whether this output for one image is the tensor that `YOLODetections` takes, or a structure that starts with it.

    The model tells its number of classes, or there are probabilities behind the boxes, in pixels, of many predictions.
    """
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim != 3 or output.shape[1] < 5:
        return False
    classes = find_num_classes(model)
    if classes is not None:
        return _holds_classes(output, 4 + classes) or bool(_describe_other_form(output, classes))
    boxes, others = output[:, :4], output[:, 4:]
    many = output.shape[2] > output.shape[1] and boxes.amax() > 1
    return bool(many and others.amin() >= 0 and others.amax() <= 1)


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


def _holds_classes(outputs: Tensor, needed: int) -> bool:
    """Whether each prediction is a column with boxes and classes, and at most other values after them."""
    _, values, predictions = outputs.shape
    return values == needed or needed < values < predictions + 4


def _describe_other_form(outputs: Any, classes: int) -> str:
    """What to do with the output of another YOLO, for the end of an error; empty if it is none."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 3 or outputs.shape[1] <= outputs.shape[2]:
        return ""
    values = outputs.shape[2]
    if values in (6, 7):
        return ", boxes after suppression, with the best class only: wrap the part of the model before it"
    if values > 4 + classes:
        return (
            ", as YOLOv5 does, with an objectness before the classes: wrap the model so that it returns "
            "torch.cat([y[..., :4], y[..., 4:5] * y[..., 5:]], dim=2).transpose(1, 2)"
        )
    return ": transpose the last two axes" if values == 4 + classes else ""


def _check_format(box_format: str) -> str:
    if box_format not in BOX_FORMATS:
        raise ValueError(f"box_format must be one of {', '.join(BOX_FORMATS)}, got {box_format!r}")
    return box_format
