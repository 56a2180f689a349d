"""Pictures in a grid, with text above them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from holistic_cam_plugin.display.panels import Panel, arrange_panels


def colour(width, height, value):
    return Image.new("RGB", (width, height), (value, 0, 0))


def find(sheet, value):
    """The box of this value's pixels."""
    return Image.fromarray((np.asarray(sheet)[..., :2] == (value, 0)).all(axis=-1)).getbbox()


def test_pictures_keep_their_size_in_columns_and_rows():
    rows = [[Panel(colour(100, 50, 10), "a"), Panel(colour(80, 50, 20), "b")]]
    rows.append([Panel(colour(100, 30, 30), "c"), Panel(colour(80, 30, 40), "b")])
    sheet = arrange_panels(rows, "a note")
    boxes = [find(sheet, value) for value in (10, 20, 30, 40)]
    assert [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes] == [(100, 50), (80, 50), (100, 30), (80, 30)]
    assert [box[0] for box in boxes[:2]] == [box[0] for box in boxes[2:]]
    assert boxes[0][2] < boxes[1][0]
    assert boxes[0][3] < boxes[2][1]
    assert (boxes[0][1], boxes[2][1]) == (boxes[1][1], boxes[3][1])
    margin = boxes[0][0]
    assert sheet.width == boxes[1][2] + margin
    assert sheet.height > boxes[2][3] + margin


def test_a_text_that_repeats_the_one_above_is_left_out():
    def ink(*texts):
        sheet = arrange_panels([[Panel(colour(100, 20, 255), text)] for text in texts])
        return int((np.asarray(sheet)[..., 1] < 128).sum()) - len(texts) * 100 * 20

    assert ink("word", "word") == ink("word", "")
    assert ink("word", "words") > ink("word", "word")


def test_long_and_foreign_texts_stay_within_their_panel():
    long = "many words " * 40
    sheet = np.asarray(arrange_panels([[Panel(colour(90, 20, 0), long, long), Panel(colour(90, 20, 0), "像" * 50)]]))
    start, top, stop, _ = find(sheet, 0)
    edges = [sheet[:, :start], sheet[:, start + 90 : stop - 90], sheet[:, stop:], sheet[:1]]
    assert all((edge == 255).all() for edge in edges)
    assert (sheet[:top] < 255).any()
