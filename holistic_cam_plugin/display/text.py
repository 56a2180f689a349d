"""Text that a figure can show as it is meant."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font

__all__ = ["drawable"]


def drawable(text: str) -> str:
    """The text, with an escape, such as `\\u50cf`, for each character that the figure's font does not have."""
    glyphs = _glyphs()
    return "".join(c if c == "\n" or ord(c) in glyphs else c.encode("unicode_escape").decode() for c in text)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
