"""The passes over the pyramid: `pyramid -> capture -> pge`, and the stack of scales that they leave for `fuse`.

One scale's graph is alive at a time. On a CPU the images go through the model with their channels last in memory,
which its convolutions follow: the same numbers, a third faster for a ResNet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holistic_cam_plugin.capture import Capture, LayerError, refusal_explained
from holistic_cam_plugin.pyramid import resize_image
from holistic_cam_plugin.targets import Target, check_outputs, predicted_targets, scores

__all__ = ["Stack", "pyramid_stacks"]

# Pixels that go through the model together: small scales of several images share a pass, large ones do not. A CPU is
# busy with the largest scale of one 224 px image; a GPU takes more, within the memory of a small one.
CPU_PIXELS = 2**20
GPU_PIXELS = 2**22


class Stack(NamedTuple):
    """One image in one target layer."""

    activations: list[Tensor]  # one (C, h_t, w_t) a scale
    weights: list[list[Tensor]]  # for every target, the same


def pyramid_stacks(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Sequence[Target]] | None,
    sizes: Sequence[tuple[int, int]],
    weigh: Callable[[Tensor, Tensor], Tensor],
    interpolation: str = "bilinear",
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> tuple[Tensor, list[list[Stack]]]:
    """The target layers' activations and weights at every scale (paper, eq. 8 and 9).

    Args:
        capture: runs the model and records the target layers.
        images: `(B, C, H, W)`, on the model's device.
        targets: a list of targets for each image; None: its best-scoring class at the first scale.
        sizes: `(height, width)` of every scale in pixels.
        weigh: makes weights of one scale's activations and gradients, `(B, C, h, w)` all.
        interpolation: how the images are enlarged.
        progress: wraps the iteration over the scales.

    Returns:
        The model's output at the first scale, detached, and for every target layer the stack of every image. What the
        model gives as NaN or infinite counts as zero, with a warning.

    Raises:
        TypeError, ValueError: the model, a target layer or a target can't be explained; the message says what to do.
    """
    native = (images.shape[-2], images.shape[-1])
    stacks = [[Stack([], []) for _ in images] for _ in capture.target_layers]
    chosen = targets
    outputs: Tensor | None = None
    finite = torch.ones((), dtype=torch.bool, device=images.device)
    try:
        for size in sizes if progress is None else progress(sizes):
            scale_outputs: list[Tensor] = []
            scale_targets: list[Sequence[Target]] = []
            for some in _chunks(len(images), size, images.device):
                scaled = resize_image(images[some], size, interpolation)
                result = _explained(capture, scaled, None if chosen is None else chosen[some], native, len(sizes))
                scale_outputs.append(result.outputs)
                scale_targets += result.targets
                for layer, layer_stacks in enumerate(stacks):
                    finite &= _append(layer_stacks[some], result, layer, weigh)
            chosen = scale_targets
            outputs = torch.cat(scale_outputs) if outputs is None else outputs
    finally:
        capture.clear()
    if not finite:
        warnings.warn("the model gives NaN or infinite activations or gradients; they count as zero", stacklevel=5)
    assert outputs is not None
    return outputs, stacks


class _Pass(NamedTuple):
    """What one pass through the model gives."""

    outputs: Tensor
    targets: Sequence[Sequence[Target]]
    activations: list[Tensor]  # one (B, C, h, w) a layer
    gradients: list[list[Tensor]]  # for every k, that of the images' k-th target


def _explained(
    capture: Capture, images: Tensor, targets: Sequence[Sequence[Target]] | None, native: tuple[int, int], scales: int
) -> _Pass:
    """One pass, in the memory format that suits the device and the model."""
    if images.device.type != "cpu":
        return _pass(capture, images, targets, native, scales)
    if capture.channels_last:
        try:
            return _pass(capture, images.contiguous(memory_format=torch.channels_last), targets, native, scales)
        except (AssertionError, RuntimeError, ValueError) as error:
            if isinstance(error, (LayerError, torch.OutOfMemoryError)):
                raise
            # `view` and custom operators may insist on the usual order: a model that works in it keeps it.
    result = _pass(capture, images.contiguous(), targets, native, scales)
    capture.channels_last = False
    return result


def _pass(
    capture: Capture, images: Tensor, targets: Sequence[Sequence[Target]] | None, native: tuple[int, int], scales: int
) -> _Pass:
    size = (images.shape[-2], images.shape[-1])
    with refusal_explained(size, native):
        outputs = capture(images)
    check_outputs(outputs, len(images), scales)
    if targets is None:
        targets = [[target] for target in predicted_targets(outputs)]
    totals = scores(targets, outputs)
    with refusal_explained(size, native):
        activations = capture.activations
        gradients = [capture.gradients_of(total, keep_graph=total is not totals[-1]) for total in totals]
    capture.clear()
    return _Pass(outputs.detach(), targets, activations, gradients)


def _append(stacks: Sequence[Stack], result: _Pass, layer: int, weigh: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Add one scale of one layer to the images' stacks; tells, on the device, whether all of it is finite."""
    activations, finite = _finite(result.activations[layer])
    for stack, image_activations in zip(stacks, activations, strict=True):
        stack.activations.append(image_activations)
    for k, layers in enumerate(result.gradients):
        gradients, gradients_finite = _finite(layers[layer])
        finite = finite & gradients_finite
        weights = weigh(activations, gradients)
        for stack, targets, image_weights in zip(stacks, result.targets, weights, strict=True):
            if k < len(targets):
                if k == len(stack.weights):
                    stack.weights.append([])
                stack.weights[k].append(image_weights)
    return finite


def _finite(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor with zeros for what is not finite, and whether everything was."""
    # On a CPU the sum tells, at a tenth of the time; to ask a GPU is to wait for it.
    if tensor.device.type == "cpu" and (finite := tensor.sum().isfinite()):
        return tensor, finite
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0), tensor.isfinite().all()


def _chunks(images: int, size: tuple[int, int], device: torch.device) -> Iterator[slice]:
    """As many images at a time as have the pixels that the device takes, at least one."""
    pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    chunk = max(1, pixels // (size[0] * size[1]))
    for first in range(0, images, chunk):
        yield slice(first, min(first + chunk, images))
