"""Target layers by name, and the choice of one layer for each stage of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holistic_cam_plugin.errors import UsageError, near_matches

__all__ = ["LayerInfo", "check_maps", "find_layers", "layers_of_pass", "probe_layers", "stage_layers"]

# The deepest stages: a stem at half the input's size says little.
STAGES = 4


# Adaptive pooling gives the same grid at every scale; the others hand on what they get.
_NO_FEATURES = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity)


class LayerInfo(NamedTuple):
    """A module that gives maps."""

    name: str
    kind: str
    shape: tuple[int, ...]  # (C, h, w)


def probe_layers(model: nn.Module, size: int, device: torch.device) -> list[LayerInfo]:
    """`layers_of_pass` of a square RGB image of this size in pixels."""
    return layers_of_pass(model, torch.zeros(1, 3, size, size, device=device))


def layers_of_pass(model: nn.Module, images: Tensor) -> list[LayerInfo]:
    """Every module that gives `(B, C, h, w)` for these images, in the order in which they finish.

    Modules that run several times are left out: only their first call could be explained.
    """
    modules = {name: module for name, module in model.named_modules() if name and not isinstance(module, _NO_FEATURES)}
    calls = _output_shapes(model, modules, images)
    return [
        LayerInfo(name, type(modules[name]).__name__, shapes[0][1:])
        for name, shapes in calls.items()
        if len(shapes) == 1 and len(shapes[0]) == 4
    ]


def check_maps(model: nn.Module, names: Sequence[str], size: int, device: torch.device) -> None:
    """Raise UsageError unless each of these layers gives `(B, C, h, w)` for a square image of this size."""
    modules = dict(zip(names, find_layers(model, names), strict=True))
    calls = _output_shapes(model, modules, torch.zeros(1, 3, size, size, device=device))
    for name in names:
        shape = calls.get(name, [()])[0]
        if len(shape) != 4:
            found = f"gives {tuple(shape)}" if name in calls else "takes no part in it"
            raise UsageError(f"the layer {name!r} {found}, not maps (B, C, h, w) (--list-layers shows those that do)")


def _output_shapes(
    model: nn.Module, modules: Mapping[str, nn.Module], images: Tensor
) -> dict[str, list[tuple[int, ...]]]:
    """By name, in the order in which they finish, the shape that each call of a module gives; of no tensor, ()."""
    calls: dict[str, list[tuple[int, ...]]] = {}
    handles = []
    for name, module in modules.items():

        def record(module: nn.Module, _: object, output: object, name: str = name) -> None:
            calls.setdefault(name, []).append(tuple(output.shape) if isinstance(output, Tensor) else ())

        handles.append(module.register_forward_hook(record))
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def stage_layers(layers: Sequence[LayerInfo], size: int, classes: int) -> list[str]:
    """One layer for each of the last stages, shallow to deep.

    A stage is all the layers with maps of one size. Its outermost modules are its blocks (the others lie inside one,
    perhaps inside the first block of the next stage); the last one that finishes gives the stage's result.

    Raises:
        UsageError: no layer gives square maps.
    """
    stages: dict[int, LayerInfo] = {}
    for layer in layers:
        channels, height, width = layer.shape
        if height != width or not 4 <= height <= size // 4 or channels == classes:  # maps of classes are scores
            continue
        known = stages.get(height)
        if known is None or layer.name.count(".") <= known.name.count("."):
            stages[height] = layer
    if not stages:
        raise UsageError(
            "no layer of this model gives square (C, h, w) maps: transformers need a reshape transform, "
            "which the Python interface takes"
        )
    return [stages[height].name for height in sorted(stages, reverse=True)][-STAGES:]


def find_layers(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The modules of these names.

    Raises:
        UsageError: no such module; near matches are named.
    """
    modules = dict(model.named_modules())
    for name in names:
        if not name or name not in modules:
            raise UsageError(
                f"the model has no layer {name!r}{near_matches(name, filter(None, modules))} "
                "(--list-layers shows them all)"
            )
    return [modules[name] for name in names]
