"""Figures: legend and coverage of each map."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from holistic_cam_plugin.display.figure import Block, save_figure


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a figure of two layers and two methods; return its texts and its pixels."""
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (kept.append(figure), save(figure, *a, **k)))
    picture = np.random.default_rng(0).random((40, 60, 3), np.float32)
    dot, half = np.zeros((40, 60), np.float32), np.zeros((40, 60), np.float32)
    dot[3:15, 4] = 1
    half[:20] = np.linspace(0.2, 1, 60)

    def draw(**options):
        path = tmp_path / "figure.png"
        rows = [("layer1", [dot, half]), ("layer4", [half, dot])]
        save_figure(path, [Block("a title", picture, rows)], ["A", "B"], **options)
        figure = kept[-1]
        texts = [[axes.get_xlabel(), axes.get_ylabel(), axes.get_title()] for axes in figure.axes]
        with Image.open(path) as image:
            return texts, figure.subfigs[-1].texts[0].get_text(), np.asarray(image)

    return draw


def test_every_map_has_its_share(drawn):
    texts, *_ = drawn()
    assert [label for label, *_ in texts] == ["", "0.5 %", "50 %", "", "50 %", "0.5 %"]
    assert [name for *_, name in texts[:3]] == ["image", "A", "B"]
    assert [layer for _, layer, _ in texts[::3]] == ["layer1", "layer4"]


def test_the_legend_names_the_colours(drawn):
    _, words, pixels = drawn()
    assert "linear, inferno" in words
    _, others, rooted = drawn(scale="sqrt", colormap="viridis")
    assert "square root, viridis" in others
    assert (pixels != rooted).any()
