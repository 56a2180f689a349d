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
        joined = outputs.ndim > 0 and len(outputs) < images
        cause = ": it joins the images of a batch, so pass one image per call, with batch_size=1" if joined else ""
        raise ValueError(
            f"the model returned shape {tuple(outputs.shape)} for {images} images, not one row per image{cause}"
        )
    return outputs


def rescale_outputs(
    outputs: Outputs, size: tuple[int, ...], original: tuple[int, ...], shape: tuple[int, ...] | None
) -> Outputs:
    """Rescale the output for an image of another size to that of the original image.

    Args:
        outputs: a tensor `(B, ...)`, or detections: a list of dicts with `boxes` `(N, 4)` in pixels and optionally
            `keypoints` `(N, K, 3)` and `masks` `(N, 1, height, width)`.
        size: of the image that the model saw, in pixels.
        original: of the original image.
        shape: of the output for the original image; None for the original image itself.

    Returns:
        Dense outputs, whose height and width grow with the image's, resized with antialiasing to those of the original
        output: `(B, C, h, w)`, `(B, h, w)` or `(B, h, w, C)`, and likewise for volumes. Detections in pixels of the
        original image. Others as they are.
    """
    if isinstance(outputs, list):
        return outputs if size == original else [_rescale_detection(found, size, original) for found in outputs]
    if shape is None or outputs.shape[1:] == shape[1:] or outputs.ndim != len(shape):
        return outputs
    dense = _find_dense_axes(tuple(outputs.shape), size, tuple(shape), original)
    return outputs if dense is None else _resize_axes(outputs, dense, shape[dense])


def is_dense(outputs: Outputs, size: tuple[int, ...]) -> TypeGuard[Tensor]:
    """Whether there is an output for each place of an image of this size, as in `(B, C, h, w)` and `(B, h, w)`."""
    if not isinstance(outputs, Tensor) or outputs.ndim < 3:
        return False
    return outputs.ndim > 3 or _has_proportions(outputs.shape[1:], size)


def _find_dense_axes(
    shape: tuple[int, ...], size: tuple[int, ...], original_shape: tuple[int, ...], original: tuple[int, ...]
) -> slice | None:
    """Find the axes that grow with the image while the others stay; of several, the last ones."""
    for axes in dict.fromkeys((len(size), 2)):  # of a volume, or of a plane of it
        for first in range(len(shape) - axes, 0, -1):
            found = slice(first, first + axes)
            grids = ((shape[found], size[-axes:]), (original_shape[found], original[-axes:]))
            if (
                shape[:first] + shape[found.stop :] == original_shape[:first] + original_shape[found.stop :]
                and all(_has_proportions(*grid) for grid in grids)
                and _grows_with_image(*grids)
            ):
                return found
    # `(B, C, h, w)` in other proportions, such as the output of convolutions without padding.
    return slice(2, len(shape)) if len(shape) == len(size) + 2 and shape[1] == original_shape[1] else None


def _has_proportions(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether height and width have the proportions of the image's, up to one cell each for rounding."""
    (h, w), (height, width) = grid[-2:], size[-2:]
    return h * w > 1 and h <= height and w <= width and abs(h * width - w * height) <= height + width


def _grows_with_image(one: tuple[Sequence[int], Sequence[int]], other: tuple[Sequence[int], Sequence[int]]) -> bool:
    """Whether two grids have as many cells per pixel of their images, up to one cell each for rounding."""
    axes = zip(*one, *other, strict=True)
    return all(abs(h * other_side - other_h * side) <= side + other_side for h, side, other_h, other_side in axes)


def _resize_axes(outputs: Tensor, axes: slice, extent: tuple[int, ...]) -> Tensor:
    """Resize these successive axes, with antialiasing in two dimensions."""
    count = len(extent)
    own, last = [*range(axes.start, axes.start + count)], [*range(-count, 0)]
    maps = outputs.movedim(own, last)
    planes = maps if maps.ndim == count + 2 else maps.flatten(1, -count - 1) if maps.ndim > count + 2 else maps[:, None]
    mode = "trilinear" if count == 3 else "bilinear"
    resized = F.interpolate(planes, size=extent, mode=mode, align_corners=False, antialias=count == 2)
    return resized.reshape(*maps.shape[:-count], *extent).movedim(last, own)


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
