"""The passes over the pyramid: `pyramid -> capture -> pge`, and the stack of scales that they leave for `fuse`.

One scale's graph is alive at a time, and the largest scale comes right after the base scale, while little is held of
the others: the peak of memory is about that of its pass. On a CPU the images go through the model with their channels
last in memory, which its convolutions follow: the same numbers, a third faster for a ResNet.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holistic_cam_plugin.method.pyramid import resize_image
from holistic_cam_plugin.passes.capture import Capture, LayerError, refusal_explained
from holistic_cam_plugin.passes.outputs import Outputs, check_outputs, detached, is_dense, joined, native_outputs
from holistic_cam_plugin.passes.targets import Target, check_dependence, predicted_targets, scores
from holistic_cam_plugin.passes.tiles import common_cell, cover, cut, stitch

__all__ = ["Stack", "pyramid_stacks"]

# Pixels that go through the model together: small scales of several images share a pass, large ones do not. A CPU is
# busy with the largest scale of one 224 px image; a GPU takes more, within the memory of a small one.
CPU_PIXELS = 2**20
GPU_PIXELS = 2**22

Size = tuple[int, ...]
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
    extent: Size | None = None,
    tiles: bool = False,
) -> tuple[Outputs, list[list[Stack]]]:
    """The target layers' activations and weights at every scale (paper, eq. 8 and 9).

    Args:
        capture: runs the model and records the target layers.
        images: `(B, C, H, W)` or volumes `(B, C, D, H, W)`, on the model's device.
        targets: a list of targets for each image; None: its best-scoring class at the first scale.
        sizes: `(height, width)` of every scale in pixels, of volumes `(depth, height, width)`.
        weigh: makes weights of one scale's activations and gradients, `(B, C, h, w)` all.
        interpolation: how the images are enlarged.
        progress: wraps the iteration over the scales.
        extent: of the native image's output, if it is dense and the first scale is not the native one.
        tiles: cover enlarged images with windows of the native size.

    Returns:
        The model's output at the first scale, detached, and for every target layer the stack of every image. What the
        model gives as NaN or infinite counts as zero, with a warning; so does a later scale at which no score depends
        on the target layers, such as one at which a detection is lost.

    Raises:
        TypeError, ValueError: the model, a target layer or a target can't be explained; the message says what to do.
    """
    native = tuple(images.shape[2:])
    stacks = [[Stack([], []) for _ in images] for _ in capture.target_layers]
    passes = _Passes(capture, native, extent)
    chosen = targets
    order = sorted(range(len(sizes)), key=lambda scale: (scale > 0, -math.prod(sizes[scale])))
    outputs: Outputs | None = None
    finite = torch.ones((), dtype=torch.bool, device=images.device)
    try:
        in_order = [sizes[scale] for scale in order]
        for size in in_order if progress is None else progress(in_order):
            results = []
            for some in _chunks(len(images), size, images.device):
                run = passes.tiled if tiles and size != native else passes.whole
                result = run(images[some], size, interpolation, None if chosen is None else chosen[some])
                results.append((result.outputs, result.targets))
                for layer, layer_stacks in enumerate(stacks):
                    finite &= _append(layer_stacks[some], result, layer, weigh)
            chosen = [own for _, some_targets in results for own in some_targets]
            outputs = joined([part for part, _ in results]) if outputs is None else outputs
            passes.first = False
    finally:
        capture.clear()
    for scales in (scales for layer in stacks for stack in layer for scales in (stack.activations, *stack.weights)):
        scales[:] = [scales[order.index(scale)] for scale in range(len(order))]
    if not finite:
        warnings.warn("the model gives NaN or infinite activations or gradients; they count as zero", stacklevel=5)
    if passes.lost:
        lost = ", ".join("x".join(map(str, size)) for size in dict.fromkeys(passes.lost))
        warnings.warn(f"the targets find nothing in the images of {lost} px: these scales count as zero", stacklevel=5)
    return outputs, stacks


class _Pass(NamedTuple):
    """What one pass through the model gives."""

    outputs: Outputs
    targets: Sequence[Sequence[Target]]
    activations: list[Tensor]  # one (B, C, h, w) a layer
    gradients: list[list[Tensor]]  # for every k, that of the images' k-th target


class _Passes:
    """Passes of resized images through the model.

    Args:
        capture: runs the model.
        native: the images' own size.
        extent: as in `pyramid_stacks`; learnt from the native size if that comes first.

    Attributes:
        first: whether this is the first scale, at which every target must find something.
        lost: sizes at which no target did.
    """

    def __init__(self, capture: Capture, native: Size, extent: Size | None) -> None:
        self.capture, self.native, self.extent = capture, native, extent
        self.first = True
        self.lost: list[Size] = []
        self._grids: list[Size] | None = None  # of the layers at the native size

    def whole(
        self, images: Tensor, size: Size, interpolation: str, targets: Sequence[Sequence[Target]] | None
    ) -> _Pass:
        """One pass of resized images, in the memory format that suits the device and the model."""
        images = resize_image(images, size, interpolation)
        if images.device.type != "cpu":
            return self._pass(images, targets)
        if self.capture.channels_last:
            last = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
            try:
                return self._pass(images.contiguous(memory_format=last), targets)
            except (AssertionError, RuntimeError, ValueError) as error:
                if isinstance(error, (LayerError, torch.OutOfMemoryError)):
                    raise
                # `view` and custom operators may insist on the usual order: a model that works in it keeps it.
        result = self._pass(images.contiguous(), targets)
        self.capture.channels_last = False
        return result

    def tiled(
        self, images: Tensor, size: Size, interpolation: str, targets: Sequence[Sequence[Target]] | None
    ) -> _Pass:
        """Passes of the windows that cover each of the resized images, put together again."""
        assert targets is not None  # decided at the native size, which is no matter of tiles
        if self._grids is None:
            self.capture(images[:1])
            self._grids = [tuple(maps.shape[2:]) for maps in self.capture.activations]
        covered = cover(size, self.native, common_cell(self._grids, self.native))
        activations: list[list[Tensor]] = [[] for _ in self.capture.target_layers]
        gradients: list[list[list[Tensor]]] = [[[] for _ in activations] for _ in range(max(map(len, targets)))]
        for image, own in zip(images.split(1), targets, strict=True):
            windows = cut(resize_image(image, covered.size, interpolation), covered)
            chunks = _chunks(len(windows), self.native, windows.device)
            parts = [
                self.whole(windows[some], self.native, interpolation, [own] * len(windows[some])) for some in chunks
            ]
            if not isinstance(parts[0].outputs, Tensor) or is_dense(parts[0].outputs):
                raise ValueError(
                    "tiles=True explains one output an image; segmentation and detection need whole images"
                )
            for layer, found in enumerate(activations):
                found.append(stitch(torch.cat([part.activations[layer] for part in parts]), covered))
                for k, of_targets in enumerate(gradients):
                    like = [part.gradients[min(k, len(own) - 1)][layer] for part in parts]  # unused beyond its targets
                    of_targets[layer].append(stitch(torch.cat(like), covered))
        joined_gradients = [[torch.cat(maps) for maps in of_target] for of_target in gradients]
        return _Pass(
            images.new_zeros(len(images)), targets, [torch.cat(maps) for maps in activations], joined_gradients
        )

    def _pass(self, images: Tensor, targets: Sequence[Sequence[Target]] | None) -> _Pass:
        capture, size = self.capture, tuple(images.shape[2:])
        with refusal_explained(size, self.native):
            outputs = check_outputs(capture(images), len(images), detections=True)
        if self.extent is None and size == self.native and is_dense(outputs):
            self.extent = tuple(outputs.shape[2:])
        outputs = native_outputs(outputs, size, self.native, self.extent)
        if targets is None:
            targets = [[target] for target in predicted_targets(outputs)]
        totals = scores(targets, outputs)
        if self.first:
            for total in totals:
                check_dependence(total)
        with refusal_explained(size, self.native):
            activations = capture.activations
            gradients = [self._gradients(total, total is not totals[-1], activations, size) for total in totals]
        if size == self.native:
            self._grids = [tuple(maps.shape[2:]) for maps in activations]
        capture.clear()
        return _Pass(detached(outputs), targets, activations, gradients)

    def _gradients(self, total: Tensor, keep_graph: bool, activations: list[Tensor], size: Size) -> list[Tensor]:
        if total.requires_grad:
            return self.capture.gradients_of(total, keep_graph)
        self.lost.append(size)
        return [torch.zeros_like(maps) for maps in activations]


def _append(stacks: Sequence[Stack], result: _Pass, layer: int, weigh: Weigh) -> Tensor:
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


def _chunks(images: int, size: Size, device: torch.device) -> Iterator[slice]:
    """As many images at a time as have the pixels that the device takes, at least one."""
    pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    chunk = max(1, pixels // math.prod(size))
    for first in range(0, images, chunk):
        yield slice(first, min(first + chunk, images))
