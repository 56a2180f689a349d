"""Trying a model out: what its modules return, which of it explains a score, which sizes it takes.

Models may change when they run (buffers for another size, window sizes): all of this goes on within `untouched`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holistic_cam_plugin.passes.modes import eager, eval_mode
from holistic_cam_plugin.passes.refusals import out_of_memory

__all__ = ["REFUSALS", "Returned", "gradients", "multiple_taken", "probe_image", "returned", "untouched"]

# What models raise at a size that they don't take.
REFUSALS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)
# One larger size may pass by luck, through paddings that make up for one another.
_TRIES = 3


class Returned(NamedTuple):
    """What a module returned.

    Attributes:
        name: in the model.
        module: itself.
        shape: of the tensor, or of a tuple's first one.
        plain: whether it returned that tensor and nothing else.
        calls: how often the module ran; shape and plain are those of its first call.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    plain: bool
    calls: int = 1


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside all modules' attributes and buffers are the ones they had before.

    Parameters and hooks are left to whoever runs the model meanwhile.
    """
    kept = [(module, _attributes(module), dict(module._buffers)) for module in model.modules()]
    with eval_mode(model), eager():
        try:
            yield
        finally:
            for module, attributes, buffers in kept:
                for name in _attributes(module).keys() - attributes.keys():
                    del module.__dict__[name]
                module.__dict__.update(attributes)
                module._buffers.clear()
                module._buffers.update(buffers)


def probe_image(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Noise, always the same, in the model's dtype, on its device, with as many channels as its first convolution."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    channels = 3 if first is None else first.in_channels
    noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise.to(like)


def returned(model: nn.Module, images: Tensor) -> list[Returned]:
    """What a model's modules return for a batch of images, in the order in which they finish first."""
    calls: dict[str, list[Returned]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: object, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(first, Tensor):
                found = Returned(name, module, tuple(first.shape), first is output)
                calls.setdefault(name, []).append(found)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(record(name)).remove)
        with torch.inference_mode():
            model(images)
    return [found[0]._replace(calls=len(found)) for found in calls.values()]


def gradients(
    model: nn.Module, layers: Sequence[nn.Module], image: Tensor, score: Callable[[Any], Tensor]
) -> list[tuple[Tensor, Tensor] | None]:
    """What the layers return, and the gradient of the output's score; None: the score does not depend on it."""
    outputs: dict[nn.Module, Tensor] = {}

    def hook(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        outputs[layer] = output
        return output.clone()  # the next layer may work in place

    with ExitStack() as stack:
        for layer in set(layers):
            stack.callback(layer.register_forward_hook(hook).remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        total = score(model(image.clone().requires_grad_()))
        if not layers or not total.requires_grad:
            return [None for _ in layers]
        found = torch.autograd.grad(total, [outputs[layer] for layer in layers], allow_unused=True)
    return [
        None if gradient is None else (outputs[layer].detach().float(), gradient.float())
        for layer, gradient in zip(layers, found, strict=True)
    ]


def multiple_taken(model: nn.Module, size: tuple[int, int]) -> int | None:
    """The number of pixels that a side may grow by: 1, any; more, multiples of it; None: the model takes one size."""
    steps = [step for step in range(1, min(size) // 2 + 1) if size[0] % step == size[1] % step == 0]
    return next((step for step in steps if _takes(model, size, step)), None)


def _takes(model: nn.Module, size: tuple[int, int], step: int) -> bool:
    try:
        with torch.inference_mode():
            for times in range(1, _TRIES + 1):
                model(probe_image(model, (size[0] + times * step, size[1] + times * step)))
    except REFUSALS as error:
        if out_of_memory(error):
            raise
        return False
    return True


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All but training flags, hooks, parameters, buffers, submodules."""
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
