"""The layer that the class mask comes from: the deepest one with positions that the score depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.errors import out_of_memory
from holistic_cam_plugin.models.layers import NO_FEATURES, is_grid
from holistic_cam_plugin.models.probe import hook_modules, preserve_model
from holistic_cam_plugin.models.stages import is_relevant
from holistic_cam_plugin.passes.capture import Capture, LayerError
from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.outputs import check_outputs, is_dense
from holistic_cam_plugin.passes.records import Reshaping, holds_tensors
from holistic_cam_plugin.passes.targets import Target, predict_targets, sum_scores

__all__ = ["find_mask_layer"]


def find_mask_layer(
    model: nn.Module,
    image: Tensor,
    target: Target | None = None,
    reshape_transform: Callable[..., Any] | None = None,
) -> nn.Module | None:
    """Find the last module with positions that the score depends on.

    In a CNN it is the last stage, before the global pooling. Of a transformer whose class token alone is used at the
    end, it is a part of the last block, such as its first normalisation. Maps with a channel for each class are left
    out. One pass shows the modules; they are tried from the end of the network on, with a pass each.

    Args:
        model: in evaluation mode; it is left unchanged.
        image: `(1, C, H, W)` or `(1, C, D, H, W)`, on the model's device.
        target: maps the image's output to a scalar; None: the best-scoring class.
        reshape_transform: as in `HolisticCAM`.

    Returns:
        None if no module qualifies.
    """
    for module in _list_candidates(model, image, Reshaping(reshape_transform)):
        capture = Capture(model, [module], reshape_transform)
        try:
            outputs = check_outputs(capture(image), 1, detections=True)
            (score,) = sum_scores([predict_targets(outputs) if target is None else [target]], outputs)
            if not score.requires_grad:
                continue
            (activations,), (gradients,) = capture.activations_and_gradients(score)
        except LayerError:  # this module does not influence the score
            continue
        if is_relevant((activations.double() * gradients.double()).movedim(1, -1)):
            return module
    return None


def _list_candidates(model: nn.Module, image: Tensor, reshaping: Reshaping) -> Iterator[nn.Module]:
    """Yield the modules that return maps of features, and run once in a pass, the last one first."""
    size = tuple(image.shape[2:])
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}

    def record(module: nn.Module, _: object, output: Any) -> None:
        # In the order in which they finish; of a module that runs twice, only the first call could be explained.
        shapes.setdefault(module, []).append(_maps_shape(output, reshaping, size))

    modules = [module for name, module in model.named_modules() if name]
    with preserve_model(model), uninterrupted(hook_modules([(module, record) for module in modules])):
        outputs = model(image)
    once = {module: calls[0] for module, calls in shapes.items() if len(calls) == 1}
    found = {module: shape for module, shape in once.items() if shape and _is_result(module)}
    classes = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.ndim > 1 else None
    others = {shape[2:] for shape in found.values() if shape[1] != classes}
    for module, shape in reversed(found.items()):
        # A stage may have as many channels as there are classes; scores have features of the same size before them,
        # or are enlarged to the dense output.
        if shape[1] != classes or not (shape[2:] in others or is_dense(outputs)):
            yield module


def _is_result(module: nn.Module) -> bool:
    """Whether this is neither pooling nor a linear layer, which returns queries, keys or values of tokens."""
    return not isinstance(module, nn.Linear) and not NO_FEATURES.search(type(module).__name__)


def _maps_shape(output: Any, reshaping: Reshaping, size: tuple[int, ...]) -> tuple[int, ...]:
    """The shape `(B, C, h, w)` of the output as maps; empty if it is none, or has one position only."""
    if not isinstance(output, Tensor) and (reshaping.transform is None or not holds_tensors(output)):
        return ()
    try:
        shape = tuple(reshaping.maps(output, size).shape)
    except Exception as error:  # a reshape transform may raise anything for what it was not written for
        if out_of_memory(error):
            raise
        return ()
    return shape if len(shape) == 2 + len(size) and is_grid(shape[-2:], (size[-2], size[-1])) else ()
