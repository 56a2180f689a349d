"""Errors that the user can correct, and the words for errors of other packages."""

from __future__ import annotations

import difflib
import errno
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "MODEL_ERRORS",
    "RESUME",
    "OutputError",
    "Stopped",
    "UsageError",
    "builtin_errors",
    "check_file",
    "check_regular",
    "convert_write_errors",
    "describe_error",
    "near_matches",
    "out_of_memory",
]

# What models raise for images that they do not take.
MODEL_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

RESUME = "finished maps are saved; run the same command again to continue"  # of batch jobs

LONGEST_REASON = 500  # characters

# What PyTorch, NumPy and OpenCV say when memory runs out and they raise no type of error of their own.
_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "unable to allocate",
    "insufficient memory",
    "memoryerror",
    "bad_alloc",
)


class UsageError(Exception):
    """The command cannot be run as it was given. The message is one line; the exit code is 2."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


class OutputError(Exception):
    """The output cannot be written, or the device no longer works. The message is one line; the exit code is 3."""


class Stopped(BaseException):
    """The user or the system stopped the work. Not an Exception: nothing handles it as a failure.

    Args:
        number: of the signal, if one was received.
        hint: what to do next.
    """

    def __init__(self, number: int | None = None, hint: str = "") -> None:
        super().__init__(f"stopped{'' if number is None else f' by {signal.Signals(number).name}'}{hint}")
        self.number = number


def describe_error(error: BaseException) -> str:
    """The first line of an error's message, at most 500 characters, or the name of its type if there is no message.

    For an OSError the system's reason, without the path.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
    line = text.strip().partition("\n")[0]
    return f"{line[: LONGEST_REASON - 1]}…" if len(line) > LONGEST_REASON else line or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether the error, or the one that it quotes, says that the memory of a GPU or of the machine ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(phrase in f"{error}".lower() for phrase in _MEMORY)


def near_matches(name: str, known: Iterable[str]) -> str:
    """`; did you mean a, b or c?`, or an empty string if no known name is similar."""
    by_lower = {k.lower(): k for k in known}
    names = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    if not names:
        return ""
    return f"; did you mean {' or '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}?"


def check_file(path: Path) -> None:
    """Raise UsageError if `path` is not a file; the message suggests files of the same folder with similar names."""
    try:
        if path.is_file():
            return
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # the name is too long, or access to the folder is denied
        raise UsageError(f"{path} cannot be read: {describe_error(error)}") from error
    if exists:
        raise UsageError(f"{path} is {'a folder, not a file' if is_folder else 'not a regular file'}")
    siblings = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
    raise UsageError(f"{path} does not exist{near_matches(path.name, siblings)}")


def check_regular(path: Path) -> None:
    """Raise UsageError if `path` exists and is not a regular file: opening a FIFO would block."""
    if path.exists():
        check_file(path)


@contextmanager
def convert_write_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError of the body as an OutputError."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error
        raise OutputError(f"cannot write to {folder} ({reason}): {RESUME}") from error


@contextmanager
def builtin_errors() -> Iterator[None]:
    """Raise the command line's errors, UsageError and OutputError, as ValueError and RuntimeError."""
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from error
    except OutputError as error:
        raise RuntimeError(str(error)) from error
