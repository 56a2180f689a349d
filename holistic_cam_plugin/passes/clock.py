"""Where the time of the maps goes, for who asks: a clock that stands still unless somebody reads it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

__all__ = ["clocked", "stage"]

_seconds: ContextVar[defaultdict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def clocked() -> Iterator[defaultdict[str, float]]:
    """The seconds of every stage that this thread goes through in the body, by the stage's name."""
    seconds: defaultdict[str, float] = defaultdict(float)
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)


@contextmanager
def stage(name: str, device: torch.device) -> Iterator[None]:
    """Count the body's time where somebody reads the clock: on a GPU until its work is done."""
    seconds = _seconds.get()
    if seconds is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[name] += time.perf_counter() - start
