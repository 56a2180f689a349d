"""Pictures in a grid, each with a line of text above it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
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
        right: at the end of the line, faint.
    """

    picture: Image.Image
    left: str = ""
    right: str = ""


def arrange_panels(rows: Sequence[Sequence[Panel]], note: str = "") -> Image.Image:
    """Draw panels in rows; the pictures of a row have the same size.

    Args:
        note: a line below all rows.
    """
    width = max(panel.picture.width for row in rows for panel in row)
    font = _load_font(max(11, min(20, width // 24)))
    line, gap = round(1.9 * font.size), round(0.8 * font.size)
    total = max(sum(panel.picture.width + gap for panel in row) for row in rows) - gap
    height = sum(line + row[0].picture.height for row in rows) + (line if note else 0)
    sheet = Image.new("RGB", (total, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = 0
    for row in rows:
        x = 0
        for panel in row:
            _write(draw, panel, x, y + line // 2, font)
            sheet.paste(panel.picture, (x, y + line))
            x += panel.picture.width + gap
        y += line + row[0].picture.height
    if note:
        draw.text((0, y + line // 2), _shorten(note, font, total), _FAINT, font, anchor="lm")
    return sheet


def _write(draw: ImageDraw.ImageDraw, panel: Panel, x: int, y: int, font: ImageFont.FreeTypeFont) -> None:
    width = panel.picture.width
    right = _shorten(panel.right, font, width * (0.5 if panel.left else 1))
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
