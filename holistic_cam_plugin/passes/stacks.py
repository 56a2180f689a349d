"""The passes over the pyramid: `pyramid -> capture -> weighting`, and the stack of scales that they leave for `fuse`.

One scale's graph is alive at a time, and the largest scale comes right after the base scale, while little is held of
the others: the peak of memory is about that of its pass. On a CPU the images go through the model with their channels
last in memory, which its convolutions follow: the same numbers, a third faster for a ResNet.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.one_scale import (
    Native,
    Pass,
    Size,
    chunks,
    native_of,
    native_pass,
    tiled_pass,
    together,
    whole_pass,
)
from holistic_cam_plugin.passes.outputs import Outputs
from holistic_cam_plugin.passes.targets import Target

__all__ = ["Stack", "pyramid_stacks"]

Weigh = Callable[[Tensor, Tensor], Tensor]


class Stack(NamedTuple):
    """One image in one target layer."""

    activations: list[Tensor]  # one (C, h_t, w_t) a scale
    weights: list[list[Tensor]]  # for every target, the same


def pyramid_stacks(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Sequence[Target]] | None,
    sizes: Sequence[Size],
    weigh: Weigh,
    interpolation: str = "bilinear",
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    *,
    tiles: bool = False,
) -> tuple[Outputs, list[list[Stack]]]:
    """The target layers' activations and weights at every scale (paper, eq. 8 and 9).

    Args:
        capture: runs the model and records the target layers.
        images: `(B, C, H, W)` or volumes `(B, C, D, H, W)`, on the model's device.
        targets: a list of targets for each image; None: its best-scoring class, untouched.
        sizes: `(height, width)` of every scale in pixels, of volumes `(depth, height, width)`.
        weigh: makes weights of one scale's activations and gradients, `(B, C, h, w)` all.
        interpolation: how the images are enlarged.
        progress: wraps the iteration over the scales.
        tiles: cover enlarged images with windows of the native size.

    Returns:
        The model's output for the untouched images, detached, and for every target layer the stack of every image. What
        the model gives as NaN or infinite counts as zero, with a warning; so does a later scale at which no score
        depends on the target layers, such as one at which a detection is lost.

    Raises:
        TypeError, ValueError: the model, a target layer or a target can't be explained; the message says what to do.
    """
    found = capture.settled(partial(_scales, capture, images, targets, sizes, weigh, interpolation, progress, tiles))
    if not found.finite:
        warnings.warn("the model gives NaN or infinite activations or gradients; they count as zero", stacklevel=5)
    if found.lost:
        named = ", ".join("x".join(map(str, size)) for size in dict.fromkeys(found.lost))
        warnings.warn(f"the targets find nothing in the images of {named} px: these scales count as zero", stacklevel=5)
    return found.outputs, found.stacks


class _Scales(NamedTuple):
    """What the passes over all scales leave."""

    outputs: Outputs  # of the untouched images
    stacks: list[list[Stack]]
    finite: Tensor  # whether everything was, a bool on the device
    lost: list[Size]  # scales at which a target finds nothing


def _scales(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Sequence[Target]] | None,
    sizes: Sequence[Size],
    weigh: Weigh,
    interpolation: str,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None,
    tiles: bool,
) -> _Scales:
    """The passes themselves; arguments as in `pyramid_stacks`."""
    own = tuple(images.shape[2:])
    stacks = [[Stack([], []) for _ in images] for _ in capture.target_layers]
    order = sorted(range(len(sizes)), key=lambda scale: (scale > 0, -math.prod(sizes[scale])))
    in_order = [sizes[scale] for scale in order]
    finite = torch.ones((), dtype=torch.bool, device=images.device)
    lost: list[Size] = []
    native: Native | None = None
    try:
        if sizes[0] != own:
            native = native_pass(capture, images, targets)
        for size in in_order if progress is None else _watched(in_order, progress):
            parts = []
            for some in chunks(len(images), size, images.device):
                chosen = targets if native is None else native.targets
                given = None if chosen is None else chosen[some]
                run = tiled_pass if tiles and size != own else whole_pass
                result = run(capture, images[some], given, size, interpolation, native, base=size == sizes[0])
                for layer, layer_stacks in enumerate(stacks):
                    finite &= _append(layer_stacks[some], result, layer, weigh)
                lost += [size] * result.lost
                if native is None:
                    parts.append(native_of(result.outputs, result.targets, result.activations))
            native = native or together(parts)
    finally:
        capture.clear()
    for scales in (scales for layer in stacks for stack in layer for scales in (stack.activations, *stack.weights)):
        scales[:] = [scales[order.index(scale)] for scale in range(len(order))]
    assert native is not None  # there is a scale
    return _Scales(native.outputs, stacks, finite, lost)


def _watched(sizes: Sequence[Size], progress: Callable[[Iterable[Any]], Iterable[Any]]) -> Iterator[Size]:
    """The sizes, while `progress` watches; TypeError or ValueError unless it hands on each of them in its turn."""
    advice = "it must hand on what it gets, as tqdm.tqdm does"
    shown = progress(sizes)
    if not isinstance(shown, Iterable):
        raise TypeError(f"progress gave a {type(shown).__name__}, no iterable: {advice}")
    count = 0
    for given in shown:
        if count == len(sizes) or given is not sizes[count]:
            raise ValueError(f"progress gave {given!r} in the place of a scale or out of turn: {advice}")
        count += 1
        yield given
    if count < len(sizes):
        raise ValueError(f"progress gave {count} of {len(sizes)} scales: {advice}")


def _append(stacks: Sequence[Stack], result: Pass, layer: int, weigh: Weigh) -> Tensor:
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
