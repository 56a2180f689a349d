"""The layer that the class mask comes from: the deepest one with positions that the score depends on."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.errors import MODEL_ERRORS, out_of_memory
from holistic_cam_plugin.models.check_geometry import trust_layers
from holistic_cam_plugin.models.geometry import PLACES, patch_image, place_maps
from holistic_cam_plugin.models.layers import is_grid
from holistic_cam_plugin.models.stages import is_relevant
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.model_state import uncompiled
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.records import Reshaping, holds_tensors
from holistic_cam_plugin.passes.targets import Target, predict_targets, sum_scores

__all__ = ["find_mask_layer"]

# Pooling to a fixed grid; dropout, which returns its input; attention and gates. Of tokens, linear layers return
# queries, keys, values, or the inside of a block.
_NO_RESULT = re.compile("Adaptive|Drop|Softmax|Sigmoid")
# A layer is a stem if at most this part of the modules with parameters has finished before it.
_STEM = 0.25

Shape = tuple[int, ...]


def find_mask_layer(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[Target] | None = None,
    reshape_transform: Callable[..., Any] | None = None,
) -> nn.Module | None:
    """Find the last module with positions that the scores depend on.

    In a CNN it is the last stage, before the global pooling. Of a transformer whose class token alone is used at the
    end, it is a part of the last block, such as its first normalisation. Maps of class scores are left out, and modules
    whose maps do not change where patches of the first image change. One pass shows what the modules return; they are
    tried from the end of the network on, with a pass each.

    Only what modules return is seen. If the last sum of branches is written in the model's own forward pass, follow it
    by an `nn.Identity` and pass that to `HolisticCAM` as the mask layer.

    Args:
        model: in evaluation mode.
        images: `(B, C, H, W)` or `(B, C, D, H, W)`, on the model's device.
        targets: one per image, maps its output to a scalar; None: the best-scoring classes.
        reshape_transform: as in `HolisticCAM`.

    Returns:
        None if no module qualifies.
    """
    outputs, candidates = _list_candidates(model, images, Reshaping(reshape_transform))
    classes = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.ndim > 1 else 0
    for module in candidates:
        try:
            activations, gradients = _record(Capture(model, [module], reshape_transform), images, targets)
        except Exception as error:  # not this one: the score does not depend on it, or it returns no maps of features
            if out_of_memory(error):
                raise
            continue
        if gradients.shape[1] == classes and _are_scores(gradients):
            continue
        if is_relevant((activations * gradients).cpu().double().movedim(1, -1)):
            trust_layers([module], reshape_transform, tuple(images.shape[2:]))
            return module
    return None


def _record(capture: Capture, images: Tensor, targets: Sequence[Target] | None) -> tuple[Tensor, Tensor]:
    outputs = check_outputs(capture(images), len(images), detections=True)
    if isinstance(outputs, Tensor):
        outputs = outputs.contiguous()  # targets may `view` it
    chosen = predict_targets(outputs) if targets is None else targets
    (total,) = sum_scores([[target] for target in chosen], outputs)
    (activations,), (gradients,) = capture.activations_and_gradients(total)
    return activations, gradients


def _are_scores(gradients: Tensor) -> bool:
    """Whether each image's score depends on one channel only, that of its class."""
    return bool((gradients.flatten(2).any(dim=2).sum(dim=1) <= 1).all())


def _list_candidates(model: nn.Module, images: Tensor, reshaping: Reshaping) -> tuple[Any, list[nn.Module]]:
    """The model's output, and the modules that return maps of features once in a pass, the last one first."""
    shapes: dict[nn.Module, list[Shape]] = {}

    def run(some: Tensor, patched: bool) -> Any:
        def record(module: nn.Module, _: object, output: Any) -> None:
            # In the order in which they finish; of a module that runs twice, only the first call could be explained.
            shapes.setdefault(module, []).append(_maps_shape(output, reshaping, some, patched))

        shapes.clear()
        with uninterrupted(_recording(model, record)):
            return model(some.clone())

    try:
        outputs = run(patch_image(images[:1], PLACES[:2]), patched=True)
    except (*MODEL_ERRORS, MemoryError):  # it may take one image at a time; if not, its own error follows
        outputs = run(images[:1], patched=False)
    done = list(accumulate(any(True for _ in module.parameters(recurse=False)) for module in shapes))
    found = [
        (module, calls[0])
        for (module, calls), before in zip(shapes.items(), done, strict=True)
        if len(calls) == 1 and calls[0] and _has_result(module) and before >= _STEM * done[-1]
    ][::-1]
    # A map of one channel is a gate, unless there are no others.
    return outputs, [module for module, _ in sorted(found, key=lambda item: item[1][1] == 1)]


def _has_result(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return False
    return not _NO_RESULT.search(type(module).__name__) or any(True for _ in module.parameters())


@contextmanager
def _recording(model: nn.Module, record: Callable[..., None]) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for module in model.modules():
            if module is not model and not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(record).remove)
        stack.enter_context(torch.no_grad())
        yield


def _maps_shape(output: Any, reshaping: Reshaping, images: Tensor, patched: bool) -> Shape:
    """The shape `(B, C, h, w)` of the output as maps; empty if it is none, or has one position only."""
    size = tuple(images.shape[2:])
    if not isinstance(output, Tensor) and (reshaping.transform is None or not holds_tensors(output)):
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maps = reshaping.maps(output, size)
    except Exception as error:  # a reshape transform may raise anything for what it was not written for
        if out_of_memory(error):
            raise
        return ()
    if not isinstance(maps, Tensor) or not maps.is_floating_point() or maps.ndim != images.ndim:
        return ()
    shape = tuple(maps.shape)
    fits = shape[0] == len(images) and math.prod(shape[2:]) > 1 and all(map(int.__le__, shape[2:], size))
    # A reshape transform may take another layout for its own: its grid has the image's proportions.
    guessed = reshaping.transform is not None and not is_grid(shape[-2:], (size[-2], size[-1]))
    elsewhere = patched and fits and place_maps(maps, PLACES[:2]).is_elsewhere
    return shape if fits and not guessed and not elsewhere else ()
