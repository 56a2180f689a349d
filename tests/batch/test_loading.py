"""Threads read batches ahead: in order, not too far, and the threads end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PIL import Image

from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.batch.loading import BATCHES_AHEAD, JobImages, read_ahead
from holistic_cam_plugin.models.preprocessing import Preprocessing
from tests.batch.batch_tools import make_picture

SIDE = 32
PREPROCESSING = Preprocessing((0.5,) * 3, (0.5,) * 3, (SIDE, SIDE), SIDE, "bilinear", "made")


class Counted(JobImages):
    """Images that record which were read, and by which threads."""

    def __init__(self, jobs):
        super().__init__(Path(), [Job("", problem="unread")] * jobs, PREPROCESSING, True)
        self.asked, self.threads = [], set()

    def __getitem__(self, index):
        self.asked.append(index)
        self.threads.add(threading.current_thread())
        return super().__getitem__(index)


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_batches_come_in_order_whoever_reads_them(readers):
    images = Counted(10)
    batches = [range(4), range(4, 8), range(8, 10)]
    read = [[one.job for one in batch] for batch in read_ahead(images, batches, readers)]
    assert read == [list(batch) for batch in batches]
    assert (threading.current_thread() in images.threads) == (readers == 0)


def test_no_more_is_read_ahead_than_the_readers_need():
    images = Counted(1000)
    reading = read_ahead(images, ([number] for number in range(1000)), 2)
    next(reading)
    reading.close()
    assert not any(thread.is_alive() for thread in images.threads)
    assert 0 < len(images.asked) <= 2 * BATCHES_AHEAD + 1
    assert [len(batch) for batch in read_ahead(Counted(1), [], 2)] == []


def test_a_large_picture_is_read_without_a_word(tmp_path, monkeypatch, recwarn):
    make_picture(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 - 1)
    [[loaded]] = read_ahead(JobImages(tmp_path, [Job("large.png")], PREPROCESSING, True), [[0]], 1)
    assert loaded.pixels is not None
    assert not recwarn.list
