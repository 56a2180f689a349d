"""SIGINT (Ctrl-C) and SIGTERM (such as Slurm's) as an exception."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from holistic_cam_plugin.errors import Stopped

__all__ = ["raise_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def raise_signals() -> Iterator[None]:
    """Raise `Stopped` in the body at the first of these signals.

    Later signals are ignored, also after the body, so that they do not disturb the cleaning up.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is stop:
                signal.signal(each, handler)
