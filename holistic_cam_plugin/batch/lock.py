"""A lock on the output folder: one run at a time. It records the process that holds the lock."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from holistic_cam_plugin.batch.writing import convert_write_errors
from holistic_cam_plugin.errors import UsageError

__all__ = ["lock_folder"]

_LOCK = ".lock"
# A separate file: on some systems a locked file cannot be read.
_HOLDER = ".lock-holder"
# Errors of network file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def lock_folder(folder: Path, alternative: str = "") -> Iterator[None]:
    """Lock the folder until the body or the process ends, however it ends; some network folders have no locks.

    Args:
        alternative: What the user can do instead of waiting, for the error message.

    Raises:
        UsageError: Another run holds the lock; its process and host are named.
        OSError: The folder is not writable.
        OutputError: The folder is no longer writable at the end.
    """
    holder = folder / _HOLDER
    with _acquire_lock(folder, alternative):
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        try:
            yield
        finally:
            with convert_write_errors(folder):
                holder.unlink(missing_ok=True)


def _acquire_lock(folder: Path, alternative: str) -> AbstractContextManager[object]:
    # The soft fallback of filelock is a file that a killed run would leave behind.
    lock = FileLock(folder / _LOCK, blocking=False, fallback_to_soft=False)
    try:
        return lock.acquire()
    except Timeout:
        raise UsageError(
            f"another run is using {folder}{_describe_holder(folder)}: wait until it ends{alternative}"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return nullcontext()


def _describe_holder(folder: Path) -> str:
    """Return who holds the lock, in brackets; empty in the moment before that is written."""
    try:
        name = (folder / _HOLDER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f" ({name})" if name else ""
