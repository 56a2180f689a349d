"""Wrap models that return more than logits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.detections import is_yolo_output
from holistic_cam_plugin.passes.outputs import check_outputs

__all__ = ["Logits", "return_logits"]

# Models of transformers that otherwise take one size interpolate their positions with this keyword.
_ANY_SIZE = "interpolate_pos_encoding"


class Logits(nn.Module):
    """Return only the logits of a model that returns a dict or `ModelOutput`.

    Args:
        model: the model; it is called with the images alone.
        keywords: keyword arguments of every call.
    """

    def __init__(self, model: nn.Module, keywords: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.keywords = dict(keywords)

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its name in the wrapped model."""
        return self.model.get_submodule(target)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits `(B, classes)`."""
        outputs = self.model(images, **self.keywords)
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits


def return_logits(model: nn.Module, output: Any) -> nn.Module:
    """Return the model, or a wrapper around it if its output for one image is more than the logits.

    Raises:
        TypeError: the output has no logits.
    """
    if is_yolo_output(output, model):
        raise TypeError(
            "explainable() takes classifiers, and this model returns the boxes and classes of a YOLO: wrap it in "
            "YOLODetections(model, num_classes=...), choose a layer of its backbone, and call HolisticCAM(wrapped, "
            "[layer], multiple_of=32) with BoxScoreTarget"
        )
    if isinstance(output, list) or (isinstance(output, Mapping) and "pred_boxes" in output):
        raise TypeError(
            "explainable() takes classifiers, not detectors: choose a layer of the backbone, and call "
            "HolisticCAM(model, [layer]) with BoxScoreTarget, and with reshape_transform=fpn_reshape_transform if the "
            "layer returns a feature pyramid; wrap DETRs in DETRDetections and YOLOs in YOLODetections"
        )
    keywords = {_ANY_SIZE: True} if _ANY_SIZE in inspect.signature(model.forward).parameters else {}
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return Logits(model, keywords)
    check_outputs(output, 1)
    return Logits(model, keywords) if keywords else model
