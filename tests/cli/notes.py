"""The notes that the command line prints on standard error beside its results."""

from __future__ import annotations

import re

__all__ = ["drop_notes"]

_NOTE = re.compile(r"holistic-cam: (.* \(\d+ of \d+\) \.\.\.|\d scales \(.*times as long)\n")


def drop_notes(err: str) -> str:
    """Standard error without the lines on the pyramid and on the images."""
    return _NOTE.sub("", err)
