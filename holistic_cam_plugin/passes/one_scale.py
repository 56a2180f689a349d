"""The passes of one scale through the model: of whole images, or of the windows that cover them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from holistic_cam_plugin.method.pyramid import resize_image
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.outputs import Outputs, check_outputs, detached, is_dense, joined, native_outputs
from holistic_cam_plugin.passes.refusals import refusal_explained
from holistic_cam_plugin.passes.targets import Target, check_dependence, decided_targets, scores
from holistic_cam_plugin.passes.tiles import common_cell, cover, cut, stitch

__all__ = ["Native", "Pass", "Size", "chunks", "native_of", "native_pass", "tiled_pass", "together", "whole_pass"]

# Pixels that go through the model together: small scales of several images share a pass, large ones do not. A CPU is
# busy with the largest scale of one 224 px image; a GPU takes more, within the memory of a small one.
CPU_PIXELS = 2**20
GPU_PIXELS = 2**22

Size = tuple[int, ...]


class Native(NamedTuple):
    """What the untouched images give, and the enlarged ones need."""

    outputs: Outputs  # detached
    targets: list[Sequence[Target]]  # of every image
    extent: Size | None  # of dense outputs
    grids: list[Size]  # of the target layers


class Pass(NamedTuple):
    """What one pass through the model gives."""

    outputs: Outputs  # as those of the native image, detached
    targets: Sequence[Sequence[Target]]
    activations: list[Tensor]  # one (B, C, h, w) a layer
    gradients: list[list[Tensor]]  # for every k, that of the images' k-th target
    lost: bool = False  # a target finds nothing in the images of this size


def native_pass(capture: Capture, images: Tensor, targets: Sequence[Sequence[Target]] | None) -> Native:
    """The untouched images without gradients: what decides the targets where the base scale is of another size.

    Raises:
        TypeError, ValueError: outputs that can't be explained, or that have no best-scoring class where one is needed.
    """

    def run() -> Native:
        own = tuple(images.shape[2:])
        parts = []
        for some in chunks(len(images), own, images.device):
            given = None if targets is None else targets[some]
            outputs, chosen = _forward(capture, given, own, None, images[some])
            parts.append(native_of(detached(outputs), chosen, capture.activations))
            capture.clear()
        return together(parts)

    return capture.settled(run)


def native_of(outputs: Outputs, targets: Sequence[Sequence[Target]], activations: Sequence[Tensor]) -> Native:
    """What a pass of untouched images gave."""
    extent = tuple(outputs.shape[2:]) if is_dense(outputs) else None
    return Native(outputs, list(targets), extent, [tuple(maps.shape[2:]) for maps in activations])


def together(parts: Sequence[Native]) -> Native:
    """What several batches gave as that of one."""
    targets = [target for part in parts for target in part.targets]
    return parts[0]._replace(outputs=joined([part.outputs for part in parts]), targets=targets)


def whole_pass(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Sequence[Target]] | None,
    size: Size,
    interpolation: str,
    native: Native | None,
    *,
    base: bool,
) -> Pass:
    """One pass of resized images.

    Args:
        targets: of every image; None: decided by this pass, which is that of the untouched images.
        native: what the untouched images gave; None: these are they.
        base: whether every target must find something.
    """
    enlarged = resize_image(images, size, interpolation)
    own = tuple(images.shape[2:])
    return _pass(capture, targets, own, native, base, enlarged)


def tiled_pass(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Sequence[Target]] | None,
    size: Size,
    interpolation: str,
    native: Native | None,
    *,
    base: bool,
) -> Pass:
    """Passes of the windows that cover each of the resized images, put together again; arguments as in `whole_pass`."""
    assert targets is not None  # decided by the untouched images, which are no matter of tiles
    assert native is not None
    own = tuple(images.shape[2:])
    covered = cover(size, own, common_cell(native.grids, own))
    activations: list[list[Tensor]] = [[] for _ in capture.target_layers]
    gradients: list[list[list[Tensor]]] = [[[] for _ in activations] for _ in range(max(map(len, targets)))]
    lost = False
    for image, chosen in zip(images.split(1), targets, strict=True):
        windows = cut(resize_image(image, covered.size, interpolation), covered)
        parts = [
            whole_pass(capture, windows[some], [chosen] * len(windows[some]), own, interpolation, native, base=base)
            for some in chunks(len(windows), own, windows.device)
        ]
        if not isinstance(parts[0].outputs, Tensor) or is_dense(parts[0].outputs):
            raise ValueError("tiles=True explains one output an image; segmentation and detection need whole images")
        lost = lost or any(part.lost for part in parts)
        for layer, found in enumerate(activations):
            found.append(stitch(torch.cat([part.activations[layer] for part in parts]), covered))
            for k, of_targets in enumerate(gradients):
                like = [part.gradients[min(k, len(chosen) - 1)][layer] for part in parts]  # unused beyond its targets
                of_targets[layer].append(stitch(torch.cat(like), covered))
    return Pass(
        images.new_zeros(len(images)),
        targets,
        [torch.cat(maps) for maps in activations],
        [[torch.cat(maps) for maps in of_target] for of_target in gradients],
        lost,
    )


def _pass(
    capture: Capture,
    targets: Sequence[Sequence[Target]] | None,
    own: Size,
    native: Native | None,
    base: bool,
    images: Tensor,
) -> Pass:
    """One pass of images as they are; `own` is the size that they had before resizing."""
    outputs, targets = _forward(capture, targets, own, None if native is None else native.extent, images)
    totals = scores(targets, outputs)
    if base:
        for total in totals:
            check_dependence(total)
    with refusal_explained(tuple(images.shape[2:]), own):
        activations = capture.activations
        gradients = [
            capture.gradients_of(total, keep_graph=total is not totals[-1])
            if total.requires_grad
            else [torch.zeros_like(maps) for maps in activations]
            for total in totals
        ]
    capture.clear()
    lost = not all(total.requires_grad for total in totals)
    return Pass(detached(outputs), targets, activations, gradients, lost)


def _forward(
    capture: Capture, targets: Sequence[Sequence[Target]] | None, own: Size, extent: Size | None, images: Tensor
) -> tuple[Outputs, Sequence[Sequence[Target]]]:
    """The outputs as those of the native images, and the targets: here they are decided where none are given."""
    size = tuple(images.shape[2:])
    with refusal_explained(size, own):
        outputs = check_outputs(capture(images, channels_last=True), len(images), detections=True)
    outputs = native_outputs(outputs, size, own, extent)
    if isinstance(outputs, Tensor):
        outputs = outputs.contiguous()  # targets may `view` it, whatever the layout of the model's images
    return outputs, decided_targets(targets, outputs)


def chunks(images: int, size: Size, device: torch.device) -> Iterator[slice]:
    """As many images at a time as have the pixels that the device takes, at least one."""
    pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    chunk = max(1, pixels // math.prod(size))
    for first in range(0, images, chunk):
        yield slice(first, min(first + chunk, images))
