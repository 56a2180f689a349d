"""Text in figures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from holistic_cam_plugin.display import figure as figures
from holistic_cam_plugin.display.figure import Block, save_figure
from holistic_cam_plugin.display.text import escape_missing_glyphs

PICTURE = np.zeros((20, 30, 3), np.float32)
ODD = ["🦄 像 \ud800", "a$_$b.jpg", "$x", "\\frac $\\frac{$", "tab\tbell\a", "", "%s {0} {", "n" * 300, "two  spaces"]


def test_characters_without_a_glyph_are_escaped():
    text = "Ünïcode 像 😀🦄\udcff\tend\nline"
    assert escape_missing_glyphs(text) == "Ünïcode \\u50cf 😀\\U0001f984\\udcff\\tend\nline"


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a figure with these texts and return it; warnings are errors."""
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (kept.append(figure), save(figure, *a, **k)))

    def draw(label, title, rows=1):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            block = Block(title, PICTURE, [(label, [PICTURE[..., 0]])] * rows)
            save_figure(tmp_path / "figure.png", [block], ["A"], foot=title)
        return kept[-1]

    return draw


@pytest.mark.parametrize("text", ODD)
def test_texts_are_shown_literally_and_without_a_warning(drawn, text):
    figure = drawn(text, text)
    block = figure.subfigs[0].subfigs[0]
    assert "".join(block.get_suptitle().split()) == "".join(escape_missing_glyphs(text).split())
    assert figure.axes[0].get_ylabel() == escape_missing_glyphs(text)
    for shown in (block._suptitle, figure.axes[0].yaxis.label):
        assert not shown.get_parse_math()


def test_a_long_title_stays_inside(drawn):
    figure = drawn("layer", "golden retriever " * 20)
    box = figure.subfigs[0].subfigs[0]._suptitle.get_window_extent()
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
    assert 0 <= box.y0 <= box.y1 <= figure.bbox.height
    assert box.y0 >= figure.axes[0].get_window_extent().y1


def test_a_figure_of_many_rows_is_made_smaller(drawn, monkeypatch):
    monkeypatch.setattr(figures, "MAX_SIDE", 600)
    assert max(drawn("layer", "title", rows=6).canvas.get_width_height()) <= 600
