"""The output folder's lock: one run at a time, and a word on which it is."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from holistic_cam_plugin.batch.writing import writing
from holistic_cam_plugin.errors import UsageError

__all__ = ["locked"]

_LOCK = ".lock"
# Not in the lock's own file: that can't be read everywhere while it is locked.
_HOLDER = ".lock-holder"
# What network folders without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, otherwise: str = "") -> Iterator[None]:
    """Held until the body ends, or the process, however it ends. Some network folders have no locks.

    Args:
        otherwise: what one can do instead of waiting.

    Raises:
        UsageError: another run holds it; its process and its host are named.
        OSError: the folder can't be written.
        OutputError: it no longer can, at the end.
    """
    word = folder / _HOLDER
    with _taken(folder, otherwise):
        word.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        try:
            yield
        finally:
            with writing(folder):
                word.unlink(missing_ok=True)


def _taken(folder: Path, otherwise: str) -> AbstractContextManager[object]:
    # Its substitute for folders without locks is a file that a killed run would leave behind.
    lock = FileLock(folder / _LOCK, blocking=False, fallback_to_soft=False)
    try:
        return lock.acquire()
    except Timeout:
        raise UsageError(f"another run is at work in {folder}{_holder(folder)}: wait for its end{otherwise}") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return nullcontext()


def _holder(folder: Path) -> str:
    """Who holds the lock, in brackets; nothing in the moment before it says so."""
    try:
        name = (folder / _HOLDER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f" ({name})" if name else ""
