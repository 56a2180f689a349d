"""Run a model without changing it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holistic_cam_plugin.passes.inference_tensors import normal_tensors
from holistic_cam_plugin.passes.interrupts import uninterrupted
from holistic_cam_plugin.passes.model_state import eval_mode, uncompiled
from holistic_cam_plugin.passes.rnns import native_rnns

__all__ = ["preserve_model"]

# The attributes of every module: flags, hooks, parameters, buffers, submodules.
_MODULE = frozenset(vars(nn.Module()))


def preserve_model(model: nn.Module) -> AbstractContextManager[None]:
    """Switch to evaluation mode without gradients in the body; afterwards attributes and buffers are as before it.

    A model may keep what it computes in a list or a cache of its own: not in inference mode, whose tensors could never
    take part in a gradient.
    """
    return uninterrupted(_preserve_model(model))


@contextmanager
def _preserve_model(model: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        for state in (eval_mode(model), uncompiled(), native_rnns(model), normal_tensors(model)):
            stack.enter_context(state)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        saved = [(module, _copy_attributes(module), _copy_buffers(module)) for module in modules]
        try:
            yield
        finally:
            for module, attributes, buffers in saved:
                _restore_attributes(module, attributes)
                module._buffers.clear()
                for name, (buffer, values) in buffers.items():
                    module._buffers[name] = buffer
                    if buffer is not None:
                        _restore_values(buffer, values)


def _copy_attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """All attributes but those of `nn.Module` itself: the object, and a copy of it if it may change in place."""
    own = {name: value for name, value in vars(module).items() if name not in _MODULE}
    return {name: (value, _copy(value)) for name, value in own.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return copy(value) if isinstance(value, (dict, list, set)) else None


def _restore_attributes(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    for name in [name for name in vars(module) if name not in _MODULE and name not in attributes]:
        del module.__dict__[name]
    for name, (value, content) in attributes.items():
        module.__dict__[name] = value
        if isinstance(value, Tensor):
            _restore_values(value, content)
        elif isinstance(value, list):
            value[:] = content
        elif isinstance(value, (dict, set)):
            value.clear()
            value.update(content)


def _restore_values(tensor: Tensor, values: Tensor) -> None:
    if not torch.equal(tensor, values):  # changed in place
        tensor.copy_(values)


def _copy_buffers(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    return {name: (value, None if value is None else value.clone()) for name, value in module._buffers.items()}
