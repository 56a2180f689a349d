"""Threads work ahead: in order, not too far, and the threads end."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from holistic_cam_plugin.batch.ahead import map_ahead
from holistic_cam_plugin.models.pictures import load_picture, silence_decoders
from holistic_cam_plugin.models.preprocessing import Preprocessing
from tests.batch.batch_tools import make_picture

PREPROCESSING = Preprocessing((0.5,) * 3, (0.5,) * 3, (32, 32), 32, "bilinear", "made")


class Square:
    """A function that records what it was asked, and by which threads."""

    def __init__(self):
        self.asked, self.threads = [], set()

    def __call__(self, number):
        self.asked.append(number)
        self.threads.add(threading.current_thread())
        return number**2


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (1, 2), (3, 6)])
def test_results_come_in_order_whoever_computes_them(threads, ahead):
    square = Square()
    assert list(map_ahead(square, range(10), threads, ahead)) == [number**2 for number in range(10)]
    assert threading.current_thread() not in square.threads


def test_no_more_is_done_ahead_than_asked_for():
    square = Square()
    results = map_ahead(square, range(1000), 2, 4)
    assert next(results) == 0
    results.close()
    assert not any(thread.is_alive() for thread in square.threads)
    assert 0 < len(square.asked) <= 5
    assert list(map_ahead(square, [], 2, 4)) == []


def test_waiting_is_counted_and_errors_are_raised():
    waits, going = [], threading.Event()

    def wait(number):
        if number == 2:
            raise ValueError("two")
        assert going.wait(60)

    threading.Timer(0.2, going.set).start()
    results = map_ahead(wait, range(5), 1, 1, waits.append)
    next(results)
    assert waits[0] > 0.05
    with pytest.raises(ValueError, match="two"):
        list(results)


def test_a_large_picture_is_read_without_a_word(tmp_path, monkeypatch, recwarn):
    make_picture(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 - 1)
    with silence_decoders():
        assert load_picture(tmp_path / "large.png", PREPROCESSING, crop=True).pixels is not None
    assert not recwarn.list
