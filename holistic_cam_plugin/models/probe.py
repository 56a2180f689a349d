"""Run a model on noise to learn what its modules return, and which of them a score depends on.

Models may change when they run (buffers for another size, window sizes): call these functions inside `preserve_model`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.errors import MODEL_ERRORS, describe_error
from holistic_cam_plugin.models.geometry import PLACES, Placement, measure_change, patch_image, place_maps
from holistic_cam_plugin.models.layers import Layer, list_channel_axes
from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.records import Reshaping, holds_tensors
from holistic_cam_plugin.passes.refusals import checkpoint_errors

__all__ = [
    "SIZE_ERRORS",
    "compute_gradients",
    "fill_zero_weights",
    "make_noise",
    "place_layers",
    "record_outputs",
]

# Models raise one of these for an image of a size that they do not accept.
SIZE_ERRORS = MODEL_ERRORS

Hook = Callable[[nn.Module, Any, Any], Any]


def make_noise(model: nn.Module, size: tuple[int, ...], channels: int) -> Tensor:
    """Make an image `(1, C, *size)` of noise, always the same, in the model's dtype and on its device."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise.to(like)


def record_outputs(model: nn.Module, images: Tensor) -> tuple[list[Layer], dict[str, dict[int, Tensor]]]:
    """Record what all modules return, in the order in which they first finish.

    Args:
        images: one image, or a batch of `patch_image`.

    Returns:
        The modules with their outputs' shapes. And for a batch, by name, what `measure_change` gives for outputs with
        one row per image, for each axis that may be the channels'.
    """
    size = (images.shape[2], images.shape[3])
    calls: dict[str, list[Layer]] = {}
    changes: dict[str, dict[int, Tensor]] = {}

    def record(name: str, module: nn.Module, _: object, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(first, Tensor):
            return
        axes = list_channel_axes(first.shape, size)
        if name not in calls and axes and first.is_floating_point() and 1 < len(first) == len(images):
            changes[name] = {axis: measure_change(first, axis) for axis in axes}
        calls.setdefault(name, []).append(Layer(name, module, tuple(first.shape), first is output))

    hooks = [(module, partial(record, name)) for name, module in model.named_modules() if name]
    with uninterrupted(_hook_modules(hooks)):
        model(images)
    done = list(
        accumulate(any(True for _ in of_layer[0].module.parameters(recurse=False)) for of_layer in calls.values())
    )
    return [
        outputs[0]._replace(calls=len(outputs), before=count, after=done[-1] - count)
        for outputs, count in zip(calls.values(), done, strict=True)
    ], changes


def place_layers(
    model: nn.Module,
    transforms: Mapping[nn.Module, Callable[..., Any] | None],
    image: Tensor,
    places: Sequence[tuple[float, float]] = PLACES,
) -> dict[nn.Module, Placement | str]:
    """Find out where the maps of layers change if patches of an image change.

    Args:
        model: in evaluation mode, inside `preserve_model`.
        transforms: a reshape transform for each layer, or None.
        image: `(1, C, H, W)` or `(1, C, D, H, W)`.
        places: of the patches.

    Returns:
        For each layer that runs, its placement, or why it returns no maps.
    """
    size = tuple(image.shape[2:])
    found: dict[nn.Module, Placement | str] = {}

    def record(layer: nn.Module, _: object, output: Any) -> None:
        if layer in found:  # of a layer that runs twice, the first call counts
            return
        maps = _read_maps(output, transforms[layer], size, 1 + len(places))
        found[layer] = place_maps(maps, places) if isinstance(maps, Tensor) else maps

    with uninterrupted(_hook_modules([(layer, record) for layer in transforms])):
        model(patch_image(image, places))
    return found


def _read_maps(output: Any, transform: Callable[..., Any] | None, size: tuple[int, ...], images: int) -> Tensor | str:
    """The maps `(images, C, ...)` of an output, or why there are none."""
    if not isinstance(output, Tensor) and (transform is None or not holds_tensors(output)):
        return f"returns a {type(output).__name__}"
    try:
        maps = Reshaping(transform).maps(output, size)
    except Exception as error:  # a reshape transform may raise anything for what it was not written for
        return f"is refused by the reshape transform: {describe_error(error)}"
    if not isinstance(maps, Tensor) or maps.ndim != 2 + len(size):
        return f"returns {tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__}, no maps"
    return maps.detach() if len(maps) == images else f"returns {len(maps)} rows for {images} images"


def compute_gradients(
    model: nn.Module, layers: Sequence[nn.Module], image: Tensor, score: Callable[[Any], Tensor]
) -> Mapping[nn.Module, tuple[Tensor, Tensor]]:
    """Compute activations and gradients, in float32, of the layers that the score depends on.

    Args:
        score: maps the model's output to a scalar.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def record(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        outputs[layer] = output
        return output.clone()  # the next layer may work in place

    with uninterrupted(_hook_modules([(layer, record) for layer in set(layers)], gradients=True)):
        total = score(model(image.clone().requires_grad_()))
        outputs = {layer: output for layer, output in outputs.items() if output.requires_grad}
        if not outputs or not total.requires_grad:
            return {}
        with checkpoint_errors():
            gradients = torch.autograd.grad(total, [*outputs.values()], allow_unused=True)
    return {
        layer: (outputs[layer].detach().float(), gradient.float())
        for layer, gradient in zip(outputs, gradients, strict=True)
        if gradient is not None
    }


def fill_zero_weights(model: nn.Module) -> AbstractContextManager[None]:
    """Fill weights that are all zero with noise in the body: a head that begins with zeros hides what it depends on."""
    return uninterrupted(_fill_zero_weights(model))


@contextmanager
def _fill_zero_weights(model: nn.Module) -> Iterator[None]:
    generator = torch.Generator().manual_seed(0)
    zero = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None and weight.ndim > 1 and weight.is_floating_point() and not weight.any()
    ]
    try:
        for module, name, weight in zero:
            noise = torch.randn(weight.shape, generator=generator) / math.sqrt(weight[0].numel())
            module._parameters[name] = nn.Parameter(noise.to(weight), requires_grad=weight.requires_grad)
        yield
    finally:
        for module, name, weight in zero:
            module._parameters[name] = weight


@contextmanager
def _hook_modules(hooks: Iterable[tuple[nn.Module, Hook]], *, gradients: bool = False) -> Iterator[None]:
    """Register forward hooks in the body, in which gradients are recorded if asked for."""
    handles = []
    try:
        for module, hook in hooks:
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_hook(hook))
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for handle in handles:
            handle.remove()
