"""SIGKILL at random moments and at every disk operation; SIGTERM. The next run ends with the same maps."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time

import pytest

from tests.batch.batch_tools import (
    QUICK,
    kill,
    make_pictures,
    rows,
    run_command,
    start_command,
    tree,
)
from tests.processes import PATIENCE, wait_for

KILLS = 22
COUNT = 12
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process groups and no SIGKILL on Windows")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder, COUNT)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The output of an undisturbed run."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    finish(command(pictures, output))
    return tree(output)


def command(pictures, output):
    return ("batch", pictures, "--output", output, *QUICK, "--workers", "1", "--batch-size", "3")


def finish(arguments):
    assert run_command(arguments) == 1  # one broken picture


@pytest.mark.campaign
def test_sigkill_at_random_moments(pictures, whole, tmp_path):
    assert len(whole) == COUNT + 2
    chance = random.Random(0)
    kills = folders = 0
    while kills < KILLS:
        output = tmp_path / f"output {(folders := folders + 1)}"
        for _ in range(6):
            process = start_command(command(pictures, output))
            # After some more maps and a short random time, which may be in the middle of any operation.
            wait_for_maps(output, maps(output) + chance.randrange(4), process)
            time.sleep(chance.uniform(0, 0.1))
            kills += kill(process)
        finish(command(pictures, output))
        assert tree(output) == whole
        assert folders < KILLS


def maps(output):
    return len(list(output.rglob("*.npz")))


def wait_for_maps(output, count, process):
    wait_for(lambda: maps(output) >= count, process)


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.campaign)])
def test_sigkill_at_a_step_on_the_disk(tmp_path, stride):
    """At every disk operation, or at a few of them."""
    pictures = tmp_path / "pictures"
    make_pictures(pictures, 2)
    arguments = ("batch", pictures, *QUICK, "--workers", "0", "--overlays", "--output")
    assert run_command((*arguments, tmp_path / "whole")) == 0
    whole = tree(tmp_path / "whole")
    assert len(whole) == 2 * 2 + 2
    deaths = 0
    for step in itertools.count(0, stride):
        output = tmp_path / f"output {step}"
        process = start_command((*arguments, output), kill_at=step)
        process.join(PATIENCE)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        assert run_command((*arguments, output)) == 0
        assert tree(output) == whole, step
    assert deaths * stride > 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_cleanly(pictures, tmp_path, number):
    output = tmp_path / "output"
    slow = (*command(pictures, output), "--sizes", "64", "400")  # slow enough to be stopped
    process = start_command(slow)
    wait_for_maps(output, 1, process)
    os.killpg(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == 128 + number
    assert not list(output.glob(".part*"))
    assert 0 < maps(output) < COUNT
    finish(slow)
    assert maps(output) == len(rows(output)) == COUNT
