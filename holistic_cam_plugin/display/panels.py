"""Pictures in a grid, each with a line of text above it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

from holistic_cam_plugin.display.text import escape_missing_glyphs

__all__ = ["Panel", "arrange_panels"]

_INK, _FAINT, _PAPER = (23, 23, 23), (112, 112, 112), (255, 255, 255)


class Panel(NamedTuple):
    """A picture with the text above it.

    Attributes:
        picture: RGB.
        left: at the start of the line.
        right: at the end of the line, faint; at most half of it.
    """

    picture: Image.Image
    left: str = ""
    right: str = ""


def arrange_panels(rows: Sequence[Sequence[Panel]], note: str = "") -> Image.Image:
    """Draw panels in rows of equal length; a text that repeats the one above is left out.

    Args:
        note: a line below all rows.
    """
    widths = [max(panel.picture.width for panel in column) for column in zip(*rows, strict=True)]
    font = _load_font(max(11, min(20, max(widths) // 24)))
    line, gap = round(1.9 * font.size), round(0.8 * font.size)
    starts = [*accumulate((width + gap for width in widths), initial=gap)]
    heights = [max(panel.picture.height for panel in row) for row in rows]
    sheet = Image.new("RGB", (starts[-1], sum(heights) + line * len(rows) + (line if note else gap)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y, above = line // 2, [""] * len(widths)
    for row, height in zip(rows, heights, strict=True):
        for panel, x, text in zip(row, starts, above, strict=False):
            _write(draw, panel if panel.left != text else panel._replace(left=""), x, y, font)
            sheet.paste(panel.picture, (x, y + line - line // 2))
        y, above = y + line + height, [panel.left for panel in row]
    if note:
        draw.text((gap, y), _shorten(note, font, sheet.width - 2 * gap), _FAINT, font, anchor="lm")
    return sheet


def _write(draw: ImageDraw.ImageDraw, panel: Panel, x: int, y: int, font: ImageFont.FreeTypeFont) -> None:
    """Write a panel's line of text, centred at the height `y`; what does not fit is cut off."""
    width = panel.picture.width
    right = _shorten(panel.right, font, width / 2)
    left = _shorten(panel.left, font, width - font.getlength(right) - (font.size if right else 0))
    draw.text((x, y), left, _INK, font, anchor="lm")
    draw.text((x + width, y), right, _FAINT, font, anchor="rm")


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut the end off until the text fits."""
    text = escape_missing_glyphs(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…" if text else ""


@cache
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's default font, whose characters `escape_missing_glyphs` knows."""
    return ImageFont.truetype(findfont(FontProperties()), size)
