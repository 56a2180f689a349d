"""Context managers that Ctrl-C cannot interrupt while they change or restore the user's state.

Python raises KeyboardInterrupt wherever it happens to be, also between `__enter__` and the `with` block, or in the
first line of `__exit__`: what was changed would stay changed. Inside of `uninterrupted` the handlers of signals are
replaced by one that looks at the stack. A signal that arrives while a protected function runs waits until that function
is done; any other one goes to the user's own handler at once.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, _GeneratorContextManager
from functools import wraps
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar, cast

__all__ = ["uninterrupted", "uninterruptible"]

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

# Python runs the handlers of signals in the main thread alone, so no other thread changes these.
_protected: set[CodeType] = set()  # deliver the signals that wait for them when they are done
_GENERATOR_MANAGERS = {_GeneratorContextManager.__enter__.__code__, _GeneratorContextManager.__exit__.__code__}
_handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}  # the user's
_waiting: list[int] = []
_entered = 0


class uninterrupted(AbstractContextManager[T], Generic[T]):  # noqa: N801 (used like a function, as `suppress` is)
    """Enter and leave a context manager without being interrupted; its body can be interrupted as always.

    Outside of the main thread, where Python raises no signal, it is the context manager itself.

    Args:
        manager: changes something when it is entered, and restores it when it is left.
    """

    def __init__(self, manager: AbstractContextManager[T]) -> None:
        self._manager = manager
        self._installed = False

    def __enter__(self) -> T:
        if _in_main_thread():
            _install()
            self._installed = True
        try:
            entered = self._manager.__enter__()
            if _waiting and not _is_inside(sys._getframe(1), _protected):
                self._manager.__exit__(None, None, None)
                _deliver(sys._getframe(1))
        except BaseException:
            self._uninstall()
            raise
        return entered

    def __exit__(self, *error: Any) -> bool | None:
        try:
            return self._manager.__exit__(*error)
        finally:
            self._uninstall()
            _deliver(sys._getframe(1))

    def _uninstall(self) -> None:
        if self._installed and _in_main_thread():
            self._installed = False
            _uninstall()


def uninterruptible(function: Function) -> Function:
    """Let signals wait until the function is done, as far as it runs inside of `uninterrupted`."""

    @wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            _deliver(sys._getframe(1))

    code: CodeType = protected.__code__  # type: ignore[attr-defined]
    _protected.add(code)
    return cast(Function, protected)


_protected |= {uninterrupted.__enter__.__code__, uninterrupted.__exit__.__code__}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install() -> None:
    global _entered
    if _entered == 0:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and handler is not _receive:
                _handlers[number] = handler
                signal.signal(number, _receive)
    _entered += 1


def _uninstall() -> None:
    global _entered
    _entered -= 1
    if _entered == 0:
        for number, handler in _handlers.items():
            if signal.getsignal(number) is _receive:  # nobody has set another one meanwhile
                signal.signal(number, handler)


def _receive(number: int, frame: FrameType | None) -> None:
    # PyTorch, too, changes its state in context managers made of generators.
    if _is_inside(frame, _protected | _GENERATOR_MANAGERS):
        _waiting.append(number)
    else:
        _handlers[number](number, frame)


def _deliver(caller: FrameType) -> None:
    """Hand on the signals that wait, unless the caller is itself a part of something protected."""
    if _waiting and not _is_inside(caller, _protected):
        number = _waiting.pop(0)
        try:
            _handlers[number](number, caller)
        finally:
            _deliver(caller)  # the other ones, also if this one raises


def _is_inside(frame: FrameType | None, functions: set[CodeType]) -> bool:
    while frame is not None:
        if frame.f_code in functions:
            return True
        frame = frame.f_back
    return False
