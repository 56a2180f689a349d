"""Recurrent layers without cuDNN, whose backward pass refuses layers in evaluation mode."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn

from holistic_cam_plugin.passes.interrupts import uninterrupted

__all__ = ["native_rnns"]

# The switch is one for all threads: the first layer turns it off, the last one restores it.
_switch_lock = threading.Lock()
_switched: list[bool] = []


def native_rnns(model: nn.Module) -> AbstractContextManager[None]:
    """Run the RNNs, LSTMs and GRUs of the model without cuDNN in the body; other layers keep it."""
    return uninterrupted(_native_rnns(model))


@contextmanager
def _native_rnns(model: nn.Module) -> Iterator[None]:
    thread = threading.get_ident()
    running = 0

    def switch_off(*_: object) -> None:
        nonlocal running
        if threading.get_ident() == thread:
            running += 1
            _switch_off()

    def restore(*_: object) -> None:
        nonlocal running
        if threading.get_ident() == thread and running:
            running -= 1
            _restore()

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                stack.callback(module.register_forward_pre_hook(switch_off).remove)
                stack.callback(module.register_forward_hook(restore, always_call=True).remove)
        try:
            yield
        finally:
            while running:  # Ctrl-C came in the middle of a layer
                restore()


def _switch_off() -> None:
    with _switch_lock:
        _switched.append(torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False


def _restore() -> None:
    with _switch_lock:
        first = _switched[0]
        _switched.pop()
        if not _switched:
            torch.backends.cudnn.enabled = first
