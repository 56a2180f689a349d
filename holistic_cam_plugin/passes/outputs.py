"""The model's output: what it may be, and how that of an enlarged image becomes one of the native image.

Targets are written for the native image: the mask of `SemanticSegmentationTarget` has the native output's size, the
boxes of `FasterRCNNBoxScoreTarget` are native pixels. So dense outputs are resized and boxes scaled, gradients flowing,
before a target sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeGuard, overload

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Detection", "Outputs", "check_outputs", "detached", "is_dense", "joined", "native_outputs"]

# What a detector finds in one image: boxes, labels, scores and whatever else it names.
Detection: TypeAlias = dict[str, Any]
# A tensor with a row an image, or one detection an image.
Outputs: TypeAlias = Tensor | list[Detection]

_WRAPPER = """wrap the model so that it returns the tensor to explain:
    class Wrapped(torch.nn.Module):
        def __init__(self, model): super().__init__(); self.model = model
        def forward(self, x): return self.model(x){pick}"""


@overload
def check_outputs(outputs: Any, images: int, detections: Literal[False] = False) -> Tensor: ...


@overload
def check_outputs(outputs: Any, images: int, detections: bool) -> Outputs: ...


def check_outputs(outputs: Any, images: int, detections: bool = False) -> Outputs:
    """The model's output; raise unless it is one tensor with a row an image.

    Args:
        outputs: what the model returned.
        images: how many it got.
        detections: whether a list of dicts, one an image, is welcome too.

    Raises:
        TypeError: a tuple, list, dict or another structure; the message shows the wrapper to write.
        ValueError: another number of rows than images.
    """
    if isinstance(outputs, (list, tuple)) and outputs and all(isinstance(some, dict) for some in outputs):
        if not detections:
            raise ValueError(
                f"the model returned a list of {len(outputs)} dicts with the keys {sorted(outputs[0])}: detection "
                "outputs can't be scored here"
            )
        if len(outputs) != images:
            raise ValueError(f"the model returned a list of {len(outputs)} dicts for {images} images")
        return list(outputs)
    if not isinstance(outputs, Tensor):
        pick = "[0]"
        if isinstance(outputs, dict):
            pick = f'["{next(iter(outputs), "logits")}"]'
        elif hasattr(outputs, "logits"):
            pick = ".logits"
        raise TypeError(f"the model returned a {type(outputs).__name__}, not a tensor; " + _WRAPPER.format(pick=pick))
    if outputs.ndim == 0 or outputs.shape[0] != images:
        raise ValueError(
            f"the model returned shape {tuple(outputs.shape)} for {images} images: its first dimension is not the batch"
        )
    return outputs


def native_outputs(
    outputs: Outputs, size: tuple[int, ...], native: tuple[int, ...], extent: tuple[int, ...] | None
) -> Outputs:
    """The output of an image of another size as if it came from the native image.

    Args:
        outputs: a tensor `(B, ...)`, or detections: a list of dicts with `boxes` `(N, 4)` in pixels and, if there are
            any, `keypoints` `(N, K, 3)` and `masks` `(N, 1, height, width)`.
        size: of the image that went through the model, in pixels.
        native: of the native image.
        extent: the native output's, of dense outputs `(B, C, *extent)`; None: not known yet.

    Returns:
        Dense outputs resized to `extent`, with antialiasing; detections in native pixels; all others as they are.
    """
    if isinstance(outputs, list):
        return outputs if size == native else [_native_detections(found, size, native) for found in outputs]
    if not is_dense(outputs) or extent is None or outputs.shape[2:] == extent:
        return outputs
    if outputs.ndim == 5:
        return F.interpolate(outputs, size=extent, mode="trilinear", align_corners=False)
    return F.interpolate(outputs, size=extent, mode="bilinear", align_corners=False, antialias=True)


def is_dense(outputs: Outputs) -> TypeGuard[Tensor]:
    """Whether this is an image or volume of scores for each image, `(B, C, h, w)` or `(B, C, d, h, w)`."""
    return isinstance(outputs, Tensor) and outputs.ndim in (4, 5)


def detached(outputs: Outputs) -> Outputs:
    """The same without a graph."""
    if isinstance(outputs, Tensor):
        return outputs.detach()
    return [{k: v.detach() if isinstance(v, Tensor) else v for k, v in found.items()} for found in outputs]


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of several batches as those of one."""
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return [found for part in parts for found in part]


def _native_detections(found: Detection, size: tuple[int, ...], native: tuple[int, ...]) -> Detection:
    down, across = (new / old for new, old in zip(native, size, strict=True))
    result = dict(found)
    if "boxes" in found:
        boxes = found["boxes"]
        result["boxes"] = boxes * boxes.new_tensor([across, down, across, down])
    if "keypoints" in found:
        points = found["keypoints"]
        result["keypoints"] = points * points.new_tensor([across, down, 1.0])
    if "masks" in found and len(found["masks"]):
        result["masks"] = F.interpolate(
            found["masks"], size=native, mode="bilinear", align_corners=False, antialias=True
        )
    return result
