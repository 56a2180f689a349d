"""Terminal output: escapes characters that the terminal cannot show, and reports a full device."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from tqdm import tqdm

from holistic_cam_plugin.errors import OutputError, describe_error

__all__ = ["complain", "say"]


def say(text: str, done: str = "") -> None:
    """Print lines on standard output, above the progress bars.

    Args:
        done: for the message of the error: what is done already.

    Raises:
        OutputError: standard output cannot be written, for example because a device is full.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        with tqdm.external_write_mode():
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"{done}standard output cannot be written: {describe_error(error)}") from error


def complain(text: str) -> None:
    """Print a line on standard error; if that fails, the exit code must do."""
    try:
        print(text.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Write the rest to the null device: Python would flush the stream again at exit, and print a traceback."""
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), stream.fileno())
