"""The state of a model during a pass: without wrappers, in evaluation mode, not compiled, in bfloat16 on request.

One thread at a time runs a model: the others wait.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_switch
from holistic_cam_plugin.passes.interrupts import uninterrupted

__all__ = [
    "check_mixed_precision",
    "copy_inputs",
    "eval_flags",
    "eval_mode",
    "keep_parameters",
    "mixed_precision",
    "model_lock",
    "uncompiled",
    "unwrap_model",
]

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
# torch.compile's stance is one for all threads: the first pass sets it, the last one restores it.
_stance_lock = threading.Lock()
_stances: list[Any] = []


def model_lock(model: nn.Module) -> threading.RLock:
    """The lock that a thread holds while it runs the model."""
    return _locks.setdefault(unwrap_model(model), threading.RLock())


def eval_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Switch the model to evaluation mode in the body; afterwards every module has its own training flag again.

    Other threads that want to enter wait until the body is done.
    """
    return uninterrupted(_exclusive_eval(model))


def eval_flags(model: nn.Module) -> AbstractContextManager[None]:
    """`eval_mode` without holding the lock in the body, which may be long."""
    return uninterrupted(_eval_flags(model))


@contextmanager
def keep_parameters(model: nn.Module) -> Iterator[None]:
    """Restore the parameters, which a library may have replaced by copies in the body, and their gradients."""
    kept = [(module, dict(module._parameters)) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, parameters in kept:
            module._parameters.update(parameters)
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def _exclusive_eval(model: nn.Module) -> Iterator[None]:
    with model_lock(model), _eval_flags(model):
        yield


@contextmanager
def _eval_flags(model: nn.Module) -> Iterator[None]:
    with model_lock(model):
        training = [module for module in model.modules() if module.training]
    try:
        with model_lock(model):
            model.eval()
        yield
    finally:
        with model_lock(model):
            _train(model, training)


def _train(model: nn.Module, training: list[nn.Module]) -> None:
    """Switch these modules of the model to training mode, and no others."""
    flags = {module: module.training for module in model.modules()} | dict.fromkeys(training, True)
    for module in training:
        # A module may do more than set its flags: adapters take their weights out again.
        if type(module).train is not nn.Module.train:
            module.train()
    for module, flag in flags.items():
        module.training = flag


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run modules that were compiled in place without their compiled graphs, which leave out hooks."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _stance_lock:
        _stances.append(None if _stances else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _stance_lock:
            first = _stances[0]
            if len(_stances) == 1:
                first.__exit__(None, None, None)
            _stances.pop()


def mixed_precision(amp: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 with `amp`; without it, whatever holds outside.

    float16 has a smaller range, in which gradients vanish.
    """
    return torch.autocast(device.type, torch.bfloat16) if amp else nullcontext()


def check_mixed_precision(amp: bool, model: nn.Module) -> None:
    """Raise TypeError unless `amp` is a bool, and ValueError if it is True and the model cannot run in bfloat16."""
    check_switch("amp", amp)
    if not amp:
        return
    parameter = next(model.parameters(), torch.empty(0))
    device = parameter.device.type
    if not torch.amp.is_autocast_available(device) or (device == "cuda" and not torch.cuda.is_bf16_supported()):
        raise ValueError(f"amp=True needs a device with bfloat16, got a model on {parameter.device}: leave amp out")
    halves = {tensor.dtype for tensor in model.parameters()} & {torch.float16, torch.bfloat16}
    if halves:
        named = ", ".join(sorted(map(str, halves)))
        raise ValueError(f"amp=True needs a float32 model, got parameters of {named}: leave amp out")


def copy_inputs(model: nn.Module) -> AbstractContextManager[None]:
    """Give the model copies of its input tensors in the body: it may change them in place."""
    return uninterrupted(_copy_inputs(model))


@contextmanager
def _copy_inputs(model: nn.Module) -> Iterator[None]:
    def copy(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)

    handle = model.register_forward_pre_hook(copy)
    try:
        yield
    finally:
        handle.remove()


def unwrap_model(model: nn.Module) -> nn.Module:
    """The module inside `DataParallel`, `DistributedDataParallel`, `torch.compile` and timm's `ModelEma` wrappers.

    Replicas and compiled graphs run without the hooks that record a layer.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif not isinstance(model, nn.Module) and isinstance(inner := getattr(model, "ema", None), nn.Module):
            model = inner  # timm's ModelEma is no module
        else:
            return model
