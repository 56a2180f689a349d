"""A thread writes while the next images are explained: in order, not too far behind, and no more after an error."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from holistic_cam_plugin.batch.explaining import Explainer, Explanation
from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.loading import Loaded
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, recorded
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.writing import AHEAD, OutputError, Writer
from holistic_cam_plugin.classifiers.models import demo_classifier

COUNT = 3 * AHEAD


@pytest.fixture
def writer(tmp_path):
    classifier = demo_classifier("cpu")
    explainer = Explainer(classifier, classifier.found.at(["layer4"]), ["gradcam"], None, False)
    inputs = Inputs(Path("in"), [Job(f"{number:02}.png") for number in range(COUNT)])
    plan = Plan(tmp_path, inputs, "digest", 1, True, "float16", False, 1, {"model": "digits", "versions": ""})
    return Writer(plan, explainer, 0)


def image(number):
    return Loaded(number, np.zeros((4, 4, 3), np.uint8), 4, 4, 1)


def explanation(seed):
    maps = np.full((1, 1, 1, 4, 4), seed / COUNT, np.float32)
    return Explanation(maps, (0,), 0, [1.0], [0.5], [0.0])


def test_the_next_image_does_not_wait_for_the_disk(writer, monkeypatch):
    going = threading.Event()
    stored = Writer._stored
    writers = []

    def slow(self, *arguments):
        assert going.wait(60)
        writers.append(threading.current_thread())
        return stored(self, *arguments)

    monkeypatch.setattr(Writer, "_stored", slow)
    with writer:
        for number in range(AHEAD):
            writer.store(image(number), "no map" if number % 2 else explanation(number))
        assert writers == []  # all of them wait for a disk that does nothing
        threading.Timer(0.2, going.set).start()
        for number in range(AHEAD, COUNT):  # more may not wait
            writer.store(image(number), explanation(number))
        assert len(writers) >= COUNT - AHEAD - AHEAD // 2 - 1
        assert writer.waiting > 0.05
    assert threading.current_thread() not in writers
    assert writer.failed == AHEAD // 2
    names = [f"{number:02}.png" for number in range(COUNT)]
    failed = names[1:AHEAD:2]
    assert [rows[0]["file"] for rows in recorded(writer.plan.folder, ERRORS)] == failed
    assert [rows[0]["file"] for rows in recorded(writer.plan.folder, MANIFEST)] == [n for n in names if n not in failed]


def test_what_is_explained_is_written_at_an_interrupt(writer):
    def interrupted():
        with writer:
            writer.store(image(0), explanation(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(list(recorded(writer.plan.folder, MANIFEST))) == 1


def test_nothing_is_written_after_an_error(writer, monkeypatch):
    stored = Writer._stored

    def full(self, image, result):
        if image.job == 2:
            raise OutputError("the disk is full")
        return stored(self, image, result)

    monkeypatch.setattr(Writer, "_stored", full)

    def store_all():
        with writer:
            for number in range(COUNT):
                writer.store(image(number), explanation(number))

    with pytest.raises(OutputError, match="the disk is full"):
        store_all()
    files = [rows[0]["file"] for rows in recorded(writer.plan.folder, MANIFEST)]
    assert files == ["00.png", "01.png"]
