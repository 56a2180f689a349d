"""Figures: legend and coverage of each map."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from holistic_cam_plugin.display.figure import Block, build_rows, save_figure


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


def test_two_models_are_beside_one_another_and_many_columns_below(tmp_path):
    picture, one = np.zeros((20, 20, 3), np.float32), np.ones((20, 20), np.float32)
    sizes = {}
    for columns in (2, 8):
        blocks = [Block("title", picture, [(str(n), [one] * columns) for n in range(rows)]) for rows in (1, 3)]
        save_figure(tmp_path / "figure.png", blocks, ["A"] * columns, dpi=20)
        with Image.open(tmp_path / "figure.png") as image:
            sizes[columns] = image.size
    # Cells of 2 inches: two blocks of an image and two methods, three rows high; one block of nine cells, four rows.
    assert 20 * 12 <= sizes[2][0] <= 20 * 13
    assert 20 * 6 <= sizes[2][1] <= 20 * 7.5
    assert 20 * 18 <= sizes[8][0] <= 20 * 19
    assert 20 * 8 <= sizes[8][1] <= 20 * 9.5


def test_long_names_of_classes_fit_beside_their_row():
    names = ["binoculars, field glasses, opera glasses", "an uncommonly long name of a class"]
    rows = build_rows(["layer4"], names, [np.zeros((1, 2, 4, 4), np.float32)])
    assert [label for label, _ in rows] == ["layer4\nbinoculars", "layer4\nan uncommonly long ..."]
