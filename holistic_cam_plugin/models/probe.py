"""Run a model on noise to learn what its modules return, which of them a score depends on, and which sizes it accepts.

Models may change when they run (buffers for another size, window sizes): call these functions inside `preserve_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.errors import MODEL_ERRORS, out_of_memory
from holistic_cam_plugin.models.layers import Layer
from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.model_state import eval_mode, uncompiled
from holistic_cam_plugin.passes.refusals import checkpoint_errors
from holistic_cam_plugin.passes.rnns import native_rnns

__all__ = [
    "SIZE_ERRORS",
    "compute_gradients",
    "find_size_multiple",
    "make_noise",
    "preserve_model",
    "record_outputs",
]

# Models raise one of these for an image of a size that they do not accept.
SIZE_ERRORS = MODEL_ERRORS
# One larger size can be accepted by chance, where several paddings compensate for one another.
_SIZES_TRIED = 3

Hook = Callable[[nn.Module, Any, Any], Any]


def preserve_model(model: nn.Module) -> AbstractContextManager[None]:
    """Switch to evaluation and inference mode in the body; afterwards attributes and buffers are as before it."""
    return uninterrupted(_preserve_model(model))


@contextmanager
def _preserve_model(model: nn.Module) -> Iterator[None]:
    with eval_mode(model), uncompiled(), native_rnns(model), torch.inference_mode():
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        saved = [(module, _copy_attributes(module), dict(module._buffers)) for module in modules]
        try:
            yield
        finally:
            for module, attributes, buffers in saved:
                for name in _copy_attributes(module).keys() - attributes.keys():
                    del module.__dict__[name]
                module.__dict__.update(attributes)
                module._buffers.clear()
                module._buffers.update(buffers)


def _copy_attributes(module: nn.Module) -> dict[str, Any]:
    """Copy all attributes but training flag, hooks, parameters, buffers and submodules."""
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}


def make_noise(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Make an image `(1, C, H, W)` of noise, always the same, with the model's channels, dtype and device."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    channels = 3 if first is None else first.in_channels
    noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise.to(like)


def record_outputs(model: nn.Module, images: Tensor) -> list[Layer]:
    """Record the outputs of all modules for a batch of images, in the order in which they first finish."""
    calls: dict[str, list[Layer]] = {}

    def record(name: str, module: nn.Module, _: object, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor):
            recorded = Layer(name, module, tuple(first.shape), first is output)
            calls.setdefault(name, []).append(recorded)

    hooks = [(module, partial(record, name)) for name, module in model.named_modules() if name]
    with uninterrupted(_hook_modules(hooks)):
        model(images)
    return [outputs[0]._replace(calls=len(outputs)) for outputs in calls.values()]


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


@contextmanager
def _hook_modules(hooks: Iterable[tuple[nn.Module, Hook]], *, gradients: bool = False) -> Iterator[None]:
    """Register forward hooks in the body, in which gradients are recorded if asked for."""
    handles = []
    try:
        for module, hook in hooks:
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_hook(hook))
        with torch.inference_mode(not gradients), torch.set_grad_enabled(gradients):
            yield
    finally:
        for handle in handles:
            handle.remove()


def find_size_multiple(model: nn.Module, size: tuple[int, int]) -> int | None:
    """Find what the sides may grow by in pixels: 1 for any size, n for multiples of n, None if no other size runs."""
    steps = [step for step in range(1, min(size) // 2 + 1) if size[0] % step == size[1] % step == 0]
    return next((step for step in steps if _accepts_steps(model, size, step)), None)


def _accepts_steps(model: nn.Module, size: tuple[int, int], step: int) -> bool:
    try:
        for times in range(1, _SIZES_TRIED + 1):
            model(make_noise(model, (size[0] + times * step, size[1] + times * step)))
    except SIZE_ERRORS as error:
        if out_of_memory(error):
            raise
        return False
    return True
