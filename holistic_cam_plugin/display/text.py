"""Text in figures."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font

__all__ = ["escape_missing_glyphs"]


def escape_missing_glyphs(text: str) -> str:
    """Replace every character that the figure's font lacks by an escape sequence.

    Example:
        >>> print(escape_missing_glyphs("Ünïcode 像"))
        Ünïcode \\u50cf
    """
    glyphs = _load_glyphs()
    return "".join(c if c == "\n" or ord(c) in glyphs else c.encode("unicode_escape").decode() for c in text)


@cache
def _load_glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
