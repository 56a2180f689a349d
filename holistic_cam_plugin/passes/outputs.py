"""The model's output: which types are supported, and how the output for an enlarged image is rescaled.

Targets are written for the original image: the mask of `SemanticSegmentationTarget` has the size of its output, and the
boxes of `FasterRCNNBoxScoreTarget` are in its pixels. So dense outputs are resized and boxes are scaled before a target
sees them; gradients flow through both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeGuard, overload

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Detection", "Outputs", "check_outputs", "detach_outputs", "is_dense", "join_outputs", "rescale_outputs"]

# A detector's output for one image: boxes, labels, scores and others.
Detection: TypeAlias = dict[str, Any]
# A tensor with one row per image, or one detection per image.
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
    """Return the model's output if it is one tensor with one row per image.

    Args:
        outputs: what the model returned.
        images: the number of images.
        detections: accept a list of dicts, one per image, too.

    Raises:
        TypeError: a tuple, list, dict or another structure; the message shows the wrapper to write.
        ValueError: the number of rows is not the number of images.
    """
    if isinstance(outputs, (list, tuple)) and outputs and all(isinstance(some, dict) for some in outputs):
        if not detections:
            raise ValueError(
                f"the model returned a list of {len(outputs)} dicts with the keys {sorted(outputs[0])}: detection "
                "outputs cannot be scored here"
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
        raise ValueError(f"the model returned shape {tuple(outputs.shape)} for {images} images, not one row per image")
    return outputs


def rescale_outputs(
    outputs: Outputs, size: tuple[int, ...], original: tuple[int, ...], extent: tuple[int, ...] | None
) -> Outputs:
    """Rescale the output for an image of another size to that of the original image.

    Args:
        outputs: a tensor `(B, ...)`, or detections: a list of dicts with `boxes` `(N, 4)` in pixels and optionally
            `keypoints` `(N, K, 3)` and `masks` `(N, 1, height, width)`.
        size: of the image that the model saw, in pixels.
        original: of the original image.
        extent: of the original image's dense output `(B, C, *extent)`; None for the original image itself.

    Returns:
        Dense outputs resized to `extent`, with antialiasing; detections in pixels of the original image; others as they
        are.
    """
    if isinstance(outputs, list):
        return outputs if size == original else [_rescale_detection(found, size, original) for found in outputs]
    if not is_dense(outputs) or extent is None or outputs.shape[2:] == extent:
        return outputs
    if outputs.ndim == 5:
        return F.interpolate(outputs, size=extent, mode="trilinear", align_corners=False)
    return F.interpolate(outputs, size=extent, mode="bilinear", align_corners=False, antialias=True)


def is_dense(outputs: Outputs) -> TypeGuard[Tensor]:
    """Whether these are maps or volumes of scores, `(B, C, h, w)` or `(B, C, d, h, w)`."""
    return isinstance(outputs, Tensor) and outputs.ndim in (4, 5)


def detach_outputs(outputs: Outputs) -> Outputs:
    """The outputs without their graph."""
    if isinstance(outputs, Tensor):
        return outputs.detach()
    return [{k: v.detach() if isinstance(v, Tensor) else v for k, v in found.items()} for found in outputs]


def join_outputs(parts: Sequence[Outputs]) -> Outputs:
    """Concatenate the outputs of several batches."""
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return [found for part in parts for found in part]


def _rescale_detection(found: Detection, size: tuple[int, ...], original: tuple[int, ...]) -> Detection:
    down, across = (new / old for new, old in zip(original, size, strict=True))
    result = dict(found)
    if "boxes" in found:
        boxes = found["boxes"]
        result["boxes"] = boxes * boxes.new_tensor([across, down, across, down])
    if "keypoints" in found:
        points = found["keypoints"]
        result["keypoints"] = points * points.new_tensor([across, down, 1.0])
    if "masks" in found and len(found["masks"]):
        result["masks"] = F.interpolate(
            found["masks"], size=original, mode="bilinear", align_corners=False, antialias=True
        )
    return result
