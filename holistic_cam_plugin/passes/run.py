"""The passes of a pyramid through the model: one for the original images, which decides the targets, and one per scale.

They return activations and gradients and know nothing of weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from holistic_cam_plugin.method.pyramid import resize_image
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.outputs import (
    Detection,
    Outputs,
    check_outputs,
    detach_outputs,
    is_dense,
    join_outputs,
    rescale_outputs,
)
from holistic_cam_plugin.passes.refusals import describe_gap, input_errors
from holistic_cam_plugin.passes.size_errors import size_errors
from holistic_cam_plugin.passes.targets import INDEPENDENT, Target, predict_targets, sum_scores
from holistic_cam_plugin.passes.tiles import common_cell, cover, cut, stitch

__all__ = ["Original", "Scale", "Size", "check_scored", "run_original", "run_scale", "warn_of_gaps"]

# Pixels per batch: small images share a pass, large ones do not. One 1081 px image keeps a CPU busy; a GPU takes more,
# within the memory of a small one.
CPU_PIXELS = 2**20
GPU_PIXELS = 2**22

Size = tuple[int, ...]


class Scale(NamedTuple):
    """What the target layers give at one scale, float32 and finite.

    Attributes:
        size: of the images, `(H, W)` or `(D, H, W)`, in pixels.
        activations: for every target layer and image, A of shape `(C, h, w)`.
        gradients: for every target layer, image and target, G in the same shape.
        finite: whether the model gave no NaN or infinite values, which count as zero; a bool on the device.
        scored: whether every target's score depends on the target layers; the gradients of others are zero.
        comparable: whether the outputs have the shape of those for the original images.
    """

    size: Size
    activations: list[list[Tensor]]
    gradients: list[list[list[Tensor]]]
    finite: Tensor
    scored: bool
    comparable: bool


class Original(NamedTuple):
    """What the original images give.

    Attributes:
        outputs: the model's, detached.
        targets: of every image.
        scale: the target layers at this size.
    """

    outputs: Outputs
    targets: list[list[Target]]
    scale: Scale

    @property
    def shape(self) -> Size | None:
        """Shape of the outputs; None for detections."""
        return tuple(self.outputs.shape) if isinstance(self.outputs, Tensor) else None

    @property
    def takes_tiles(self) -> bool:
        """Whether windows of an image can be explained one by one: there is one output for a whole image."""
        size = self.scale.size
        return len(size) == 2 and isinstance(self.outputs, Tensor) and not is_dense(self.outputs, size)


def run_original(capture: Capture, images: Tensor, targets: list[list[Target]] | None) -> Original:
    """Run the original images and decide the targets.

    Args:
        capture: runs the model and records the target layers.
        images: `(B, C, H, W)` or `(B, C, D, H, W)`, on the model's device.
        targets: of every image; None: its best-scoring class.

    Raises:
        TypeError, ValueError: the model, a target layer or a target cannot be explained; the message says what to do.
    """
    original = _run(capture, images, targets, None)
    if not original.scale.scored and isinstance(original.outputs, list):
        raise ValueError(f"{INDEPENDENT}{_describe_detections(original.outputs)}")
    check_scored(original.scale, capture)
    return original


def run_scale(
    capture: Capture, images: Tensor, original: Original, size: Size, interpolation: str, tiles: bool
) -> Scale:
    """Run the images at another size.

    Args:
        capture, images: as in `run_original`.
        original: what it returned for these images.
        size: `(H, W)` or `(D, H, W)` in pixels.
        interpolation: how the images are resized.
        tiles: cover the resized images with windows of the original size.

    Raises:
        TypeError, ValueError: the model refuses the size; the message says what to do.
    """
    if tiles:
        return _run_tiles(capture, images, original, size, interpolation)
    return _run(capture, resize_image(images, size, interpolation), original.targets, original).scale


def check_scored(scale: Scale, capture: Capture) -> None:
    """Raise ValueError unless every target's score depends on the target layers."""
    if not scale.scored:
        raise ValueError(f"{INDEPENDENT}{describe_gap(capture.model)}")


def _describe_detections(outputs: Sequence[Detection]) -> str:
    count = sum(len(found.get("boxes", ())) for found in outputs)
    if not count:
        return ". The model finds no box in the image: lower its score threshold, such as model.score_thresh of FCOS"
    return f". None of the model's {count} boxes fits the target: pass a box and label that the model returns"


def warn_of_gaps(scales: Sequence[Scale], stacklevel: int) -> None:
    """Warn of values that are not finite, of scales without a score, and of those with outputs of another shape."""
    if not all(scale.finite for scale in scales):
        warnings.warn(
            "the model gives NaN or infinite activations or gradients: they count as zero", stacklevel=stacklevel + 1
        )
    if lost := _format_sizes(scale for scale in scales if not scale.scored):
        warnings.warn(
            f"the targets find nothing in the images of {lost} px: these scales count as zero",
            stacklevel=stacklevel + 1,
        )
    if others := _format_sizes(scale for scale in scales if not scale.comparable):
        warnings.warn(
            f"the model's output has another shape for images of {others} px than for the original: a target that "
            "takes a position by its index means another place there. Wrap the model so that it returns (B, classes) "
            "or (B, classes, h, w), or pass num_scales=1",
            stacklevel=stacklevel + 1,
        )


def _format_sizes(scales: Iterable[Scale]) -> str:
    return ", ".join("x".join(map(str, scale.size)) for scale in scales)


def _run_tiles(capture: Capture, images: Tensor, original: Original, size: Size, interpolation: str) -> Scale:
    """Run the windows that cover the resized images, and put their maps together."""
    if not original.takes_tiles:
        raise ValueError(
            "tiles=True needs one output per image: segmentation and detection need whole images. Leave it out, and "
            "pass multiple_of, sizes that the model takes, or num_scales=1 without sizes"
        )
    own = original.scale.size
    covering = cover(size, own, common_cell([tuple(maps[0].shape[1:]) for maps in original.scale.activations], own))
    resized = resize_image(images, covering.size, interpolation)
    windows = torch.cat([cut(image, covering) for image in resized.split(1)])
    count = len(covering.origins)
    scale = _run(capture, windows, [some for some in original.targets for _ in range(count)], original).scale

    def join(maps: Sequence[Tensor]) -> Tensor:
        return stitch(torch.stack(list(maps)), covering)[0]

    firsts = range(0, len(windows), count)
    return scale._replace(
        size=size,
        activations=[[join(maps[i : i + count]) for i in firsts] for maps in scale.activations],
        gradients=[
            [[join(maps) for maps in zip(*layer[i : i + count], strict=True)] for i in firsts]
            for layer in scale.gradients
        ],
    )


def _run(capture: Capture, images: Tensor, targets: list[list[Target]] | None, original: Original | None) -> Original:
    """Run images as they are, as many at a time as the device takes.

    Args:
        original: of whose size the targets expect outputs; None: these are the original images.
    """
    size = tuple(images.shape[2:])
    try:
        parts = [
            _run_batch(capture, images[some], None if targets is None else targets[some], original)
            for some in _batches(len(images), size, images.device)
        ]
    finally:
        capture.clear()
    scales = [part.scale for part in parts]
    return Original(
        join_outputs([part.outputs for part in parts]),
        [some for part in parts for some in part.targets],
        Scale(
            size,
            [list(chain(*layer)) for layer in zip(*(scale.activations for scale in scales), strict=True)],
            [list(chain(*layer)) for layer in zip(*(scale.gradients for scale in scales), strict=True)],
            torch.stack([scale.finite for scale in scales]).all(),
            all(scale.scored for scale in scales),
            all(scale.comparable for scale in scales),
        ),
    )


def _run_batch(
    capture: Capture, images: Tensor, targets: list[list[Target]] | None, original: Original | None
) -> Original:
    size = tuple(images.shape[2:])
    original_size, shape = (size, None) if original is None else (original.scale.size, original.shape)
    tiles = original is not None and original.takes_tiles
    with size_errors(size, original_size, tiles), input_errors(capture.model, images):
        outputs = check_outputs(capture(images, channels_last=True), len(images), detections=True)
    outputs = rescale_outputs(outputs, size, original_size, shape)
    if isinstance(outputs, Tensor):
        outputs = outputs.contiguous()  # targets may `view` it
    if targets is None:
        targets = [[target] for target in predict_targets(outputs)]
    totals = sum_scores(targets, outputs)
    with size_errors(size, original_size, tiles):
        activations = capture.activations
        capture.check_rows(activations, len(images))
        gradients = [
            capture.gradients_of(total, keep_graph=total is not totals[-1])
            if total.requires_grad
            else [torch.zeros_like(maps) for maps in activations]
            for total in totals
        ]
    capture.clear()
    activations, finite = _replace_nonfinite(activations)
    cleaned = [_replace_nonfinite(layers) for layers in gradients]
    return Original(
        detach_outputs(outputs),
        targets,
        Scale(
            size,
            [list(maps) for maps in activations],
            [
                [[layers[layer][image] for layers, _ in cleaned[: len(some)]] for image, some in enumerate(targets)]
                for layer in range(len(activations))
            ],
            torch.stack([finite, *(each for _, each in cleaned)]).all(),
            all(total.requires_grad for total in totals),
            shape is None or not isinstance(outputs, Tensor) or outputs.shape[1:] == shape[1:],
        ),
    )


def _batches(images: int, size: Size, device: torch.device) -> Iterator[slice]:
    pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    batch = max(1, pixels // math.prod(size))
    for first in range(0, images, batch):
        yield slice(first, first + batch)


def _replace_nonfinite(layers: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The tensors with zeros for what is not finite, and whether everything was."""
    replaced = [_replace_one(maps) for maps in layers]
    return [maps for maps, _ in replaced], torch.stack([finite for _, finite in replaced]).all()


def _replace_one(maps: Tensor) -> tuple[Tensor, Tensor]:
    # On a CPU the sum tells, in a tenth of the time. Asking a GPU would wait for it.
    if maps.device.type == "cpu" and (finite := maps.sum().isfinite()):
        return maps, finite
    return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0), maps.isfinite().all()
