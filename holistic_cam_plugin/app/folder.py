"""The explorer's temporary folder, and those that explorers before it left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["make_temporary_folder"]

_PREFIX = "holistic-cam-app-"
# A running explorer holds it; the system releases it when the process ends, however it ends.
_LOCK = "lock"


@contextmanager
def make_temporary_folder() -> Iterator[Path]:
    """Make a folder that exists during the `with` block, and remove those of explorers that were killed."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with FileLock(folder / _LOCK):
            for other in folder.parent.glob(f"{_PREFIX}*"):
                if other != folder and _is_left(other, folder):
                    shutil.rmtree(other, ignore_errors=True)
            yield folder


def _is_left(other: Path, own: Path) -> bool:
    """Whether another folder is this user's, and no process holds its lock."""
    try:
        if other.is_symlink() or other.lstat().st_uid != own.lstat().st_uid or not (other / _LOCK).is_file():
            return False
        with FileLock(other / _LOCK, timeout=0):
            return True
    except (OSError, Timeout):
        return False
