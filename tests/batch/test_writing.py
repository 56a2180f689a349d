"""A thread writes while the next images are explained: in order, not too far behind, and nothing after an error."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.loading import LoadedImage
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, read_records
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.writing import AHEAD, Writer
from holistic_cam_plugin.errors import OutputError
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.methods import Method

COUNT = 3 * AHEAD


@pytest.fixture
def writer(tmp_path):
    inputs = Inputs(Path("in"), [Job(f"{number:02}.png") for number in range(COUNT)])
    plan = Plan(tmp_path, inputs, "digest", 1, True, "float16", False, 1, {"model": "digits", "versions": ""})
    return Writer(plan, ["digit 0"], 0)


def image(number):
    return LoadedImage(number, np.zeros((4, 4, 3), np.uint8), 4, 4, 1)


def explanation(seed):
    maps = np.full((1, 1, 4, 4), seed / COUNT, np.float32)
    one = np.ones(1, np.float32)
    return Explanation([Method("gradcam", {})], ["layer4"], (0,), 0, one, one / 2, [maps], [0.0])


def test_the_next_image_does_not_wait_for_the_disk(writer, monkeypatch):
    going = threading.Event()
    stored = Writer._write_maps
    writers = []

    def slow(self, *arguments):
        assert going.wait(60)
        writers.append(threading.current_thread())
        return stored(self, *arguments)

    monkeypatch.setattr(Writer, "_write_maps", slow)
    with writer:
        for number in range(AHEAD):
            writer.write(image(number), "no map" if number % 2 else explanation(number))
        assert writers == []  # all wait for the blocked disk
        threading.Timer(0.2, going.set).start()
        for number in range(AHEAD, COUNT):  # more than may wait
            writer.write(image(number), explanation(number))
        assert len(writers) >= COUNT - AHEAD - AHEAD // 2 - 1
        assert writer.waited > 0.05
    assert threading.current_thread() not in writers
    assert writer.failed == AHEAD // 2
    names = [f"{number:02}.png" for number in range(COUNT)]
    failed = names[1:AHEAD:2]
    assert [rows[0]["file"] for rows in read_records(writer.plan.folder, ERRORS)] == failed
    assert [rows[0]["file"] for rows in read_records(writer.plan.folder, MANIFEST)] == [
        n for n in names if n not in failed
    ]


def test_what_is_explained_is_written_at_an_interrupt(writer):
    def interrupted():
        with writer:
            writer.write(image(0), explanation(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(list(read_records(writer.plan.folder, MANIFEST))) == 1


def test_nothing_is_written_after_an_error(writer, monkeypatch):
    stored = Writer._write_maps

    def full(self, image, result):
        if image.job == 2:
            raise OutputError("the disk is full")
        return stored(self, image, result)

    monkeypatch.setattr(Writer, "_write_maps", full)

    def store_all():
        with writer:
            for number in range(COUNT):
                writer.write(image(number), explanation(number))

    with pytest.raises(OutputError, match="the disk is full"):
        store_all()
    files = [rows[0]["file"] for rows in read_records(writer.plan.folder, MANIFEST)]
    assert files == ["00.png", "01.png"]
