"""What a user of the command line can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["UsageError", "check_file", "check_regular", "near_matches", "reason"]


class UsageError(Exception):
    """Shown as one line; the exit code is 2."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


def near_matches(name: str, known: Iterable[str]) -> str:
    """`; did you mean a, b or c?`, or nothing where no known name is near."""
    by_lower = {k.lower(): k for k in known}
    names = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    if not names:
        return ""
    return f"; did you mean {' or '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}?"


def reason(error: BaseException) -> str:
    """What an error of another library says, in its first line, at most 200 characters; else what it is called."""
    line = f"{error}".strip().partition("\n")[0]
    return f"{line[:199]}…" if len(line) > 200 else line or type(error).__name__


def check_file(path: Path) -> None:
    """Raise UsageError unless `path` is a file; files beside it with near names are named."""
    try:
        if path.is_file():
            return
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    if exists:
        raise UsageError(f"{path} is {'a folder, not a file' if is_folder else 'no regular file'}")
    siblings = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
    raise UsageError(f"{path} does not exist{near_matches(path.name, siblings)}")


def check_regular(path: Path) -> None:
    """Raise UsageError if something lies there that is no file: to open a pipe is to wait for ever."""
    if path.exists():
        check_file(path)
