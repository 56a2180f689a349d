"""Wrap models that return more than logits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.detections import is_yolo_output
from holistic_cam_plugin.passes.outputs import check_outputs, is_dense

__all__ = ["Logits", "return_logits"]

# Models of transformers that otherwise take one size interpolate their positions with this keyword.
_ANY_SIZE = "interpolate_pos_encoding"


class Logits(nn.Module):
    """Return only the logits of a model that returns a dict or `ModelOutput`.

    Args:
        model: the model; it is called with the images alone.
        keywords: keyword arguments of every call.
        name: of the logits in what the model returns.
    """

    def __init__(self, model: nn.Module, keywords: Mapping[str, Any], name: str = "logits") -> None:
        super().__init__()
        self.model = model
        self.keywords = dict(keywords)
        self.name = name

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its name in the wrapped model."""
        return self.model.get_submodule(target)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits `(B, classes)`."""
        outputs = self.model(images, **self.keywords)
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs[self.name]
        return logits


def return_logits(model: nn.Module, output: Any, size: tuple[int, int]) -> nn.Module:
    """Return the model, or a wrapper around it if its output for one image is more than the logits.

    Args:
        size: height and width of the image.

    Raises:
        TypeError: the output has no logits.
    """
    dense = isinstance(output, Tensor) and is_dense(output, size)
    if not dense and is_yolo_output(output, model):
        raise TypeError(
            "explainable() takes classifiers, and this model returns the boxes and classes of a YOLO: wrap it in "
            "YOLODetections(model, num_classes=...), choose a layer of its backbone, and call HolisticCAM(wrapped, "
            "[layer], multiple_of=32) with BoxScoreTarget"
        )
    detections = isinstance(output, list) and not (output and isinstance(output[0], Tensor))
    if detections or (isinstance(output, Mapping) and "pred_boxes" in output):
        raise TypeError(
            "explainable() takes classifiers, not detectors: choose a layer of the backbone, and call "
            "HolisticCAM(model, [layer]) with BoxScoreTarget, and with reshape_transform=fpn_reshape_transform if the "
            "layer returns a feature pyramid; wrap DETRs in DETRDetections and YOLOs in YOLODetections"
        )
    keywords = {_ANY_SIZE: True} if _ANY_SIZE in inspect.signature(model.forward).parameters else {}
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return Logits(model, keywords)
    if isinstance(output, Mapping) and (name := _find_only_scores(output)):
        return Logits(model, keywords, name)
    if not isinstance(output, Tensor):
        parts = list(output) if isinstance(output, Mapping) else [0]
        named = f" with {', '.join(map(repr, parts))}" if isinstance(output, Mapping) else ""
        raise TypeError(
            f"the model returned a {type(output).__name__}{named}, not a tensor of logits: wrap it in a module whose "
            f"forward returns the tensor to explain, such as self.model(images)[{next(iter(parts), 'logits')!r}]"
        )
    check_outputs(output, 1)
    if output.ndim == 1:
        raise TypeError(
            "the model returned one number (1,) for one image: wrap it in a module that returns (B, 1), such as "
            "self.model(images)[:, None]"
        )
    if output.ndim == 3 and not dense:
        raise TypeError(
            f"the model returned {tuple(output.shape)} for one image, neither logits (1, classes) nor maps of scores: "
            "wrap it in a module that returns the logits, or a YOLO in YOLODetections(model, num_classes=...)"
        )
    return Logits(model, keywords) if keywords else model


def _find_only_scores(output: Mapping[Any, Any]) -> str:
    """The name of the output's only tensor if that is `(1, classes)`; else empty."""
    tensors = {name: value for name, value in output.items() if isinstance(value, Tensor)}
    [(name, scores)] = tensors.items() if len(tensors) == 1 else [("", None)]
    return str(name) if scores is not None and scores.ndim == 2 and len(scores) == 1 else ""
