"""The model as a pass needs it: without wrappers, in evaluation mode, uncompiled, if wanted in bfloat16.

Several threads may share it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from holistic_cam_plugin.method.pyramid import check_switch

__all__ = ["MODES", "check_mixed_precision", "eager", "eval_mode", "mixed_precision", "own_inputs", "unwrapped"]

# Held for a moment only, never during a pass: what changes a model or PyTorch for all threads.
MODES = threading.Lock()


class _Evaluation(NamedTuple):
    """Who holds a model in evaluation mode."""

    threads: list[int]
    training: list[nn.Module]  # for the last one to put back into training mode, outer modules first


_evaluations: WeakKeyDictionary[nn.Module, _Evaluation] = WeakKeyDictionary()
_stances: list[Any] = []  # one for each pass under way; the first one is PyTorch's to restore


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own training flag as before outside.

    Where threads overlap in it, the flags come back when the last one has left.
    """
    thread = threading.get_ident()
    with MODES:
        evaluation = _evaluations.setdefault(model, _Evaluation([], []))
        evaluation.threads.append(thread)
        training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        with MODES:
            evaluation.threads.remove(thread)
            if any(other != thread for other in evaluation.threads):
                evaluation.training.extend(training)
                training = []
            if not evaluation.threads:
                training += evaluation.training
                _evaluations.pop(model, None)
            _train(model, training)


def _train(model: nn.Module, training: list[nn.Module]) -> None:
    """Put these modules of the model back into training mode, and no others."""
    flags = {module: module.training for module in model.modules()} | dict.fromkeys(training, True)
    for module in training:
        # A module may do more at a change of mode than set its flags: adapters take their weights out again.
        if type(module).train is not nn.Module.train:
            module.train()
    for module, flag in flags.items():
        module.training = flag


@contextmanager
def eager() -> Iterator[None]:
    """Modules that were compiled in place run uncompiled inside: hooks added later do not run in a compiled graph."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with MODES:
        _stances.append(None if _stances else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with MODES:
            # The stance is one for all threads: it goes with the last pass, whichever that is.
            last = len(_stances) == 1
            stance = _stances[0]
            if last:
                stance.__exit__(None, None, None)
            _stances.pop()


def mixed_precision(amp: bool, device: torch.device) -> AbstractContextManager[Any]:
    """With `amp` bfloat16 inside, where PyTorch holds it safe; without it whatever holds outside.

    bfloat16 on every device: float16 has a smaller range, in which gradients vanish that no loss scaling enlarges.
    """
    return torch.autocast(device.type, torch.bfloat16) if amp else nullcontext()


def check_mixed_precision(amp: bool, model: nn.Module) -> None:
    """Raise TypeError unless `amp` is a switch, and ValueError if it is on and the model can't run in bfloat16."""
    check_switch("amp", amp)
    if not amp:
        return
    parameter = next(model.parameters(), torch.empty(0))
    device = parameter.device.type
    if not torch.amp.is_autocast_available(device) or (device == "cuda" and not torch.cuda.is_bf16_supported()):
        raise ValueError(
            f"amp=True needs a device that computes in bfloat16, and {parameter.device} does not: leave it out"
        )
    halves = {tensor.dtype for tensor in model.parameters()} & {torch.float16, torch.bfloat16}
    if halves:
        named = ", ".join(sorted(map(str, halves)))
        raise ValueError(f"amp=True is for a model in float32, and this one holds {named} already: leave it out")


@contextmanager
def own_inputs(model: nn.Module) -> Iterator[None]:
    """The model gets copies of its tensors inside, which it may change in place."""

    def copies(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)

    with MODES:  # PyTorch numbers hooks one at a time
        handle = model.register_forward_pre_hook(copies)
    try:
        yield
    finally:
        handle.remove()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `DataParallel`, `DistributedDataParallel` and `torch.compile` wrappers.

    Their replicas and compiled graphs run without the hooks that record a layer.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
