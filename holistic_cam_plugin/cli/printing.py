"""Words on the terminal, whatever it can show, and whatever becomes of it."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from tqdm import tqdm

from holistic_cam_plugin.batch.writing import OutputError

__all__ = ["complain", "say", "tell"]


def say(text: str) -> None:
    """A line on standard output; characters that it does not have are escaped.

    Raises:
        OSError: it can't be written, such as to a full device.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:
        _give_up(sys.stdout)
        raise


def tell(text: str) -> None:
    """`say` above the progress bars; what keeps it from being written is an OutputError."""
    try:
        with tqdm.external_write_mode():
            say(text)
    except OSError as error:
        raise OutputError(f"standard output can't be written: {error.strerror}") from error


def complain(text: str) -> None:
    """A line on standard error; where there is no room for it, the exit code must do."""
    try:
        print(text.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    # Python would try once more at its end, and complain in words of its own.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
