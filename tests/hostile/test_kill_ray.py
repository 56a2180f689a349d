"""Kills under Ray: dead actors are replaced, a dead driver takes all others with it, and no map is lost.

HOSTILE_ROUNDS=20 kills twenty actors and twenty drivers. As Ray takes seconds to start, actors are killed one after the
other in the same session, as long as it has work; another session follows until the number is reached.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.batch.batch_tools import QUICK, list_living, make_pictures, run_command
from tests.processes import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))
COUNT = 60
pytest.importorskip("ray.data", reason="needs ray[data]")
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc"),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The maps of a run that nobody disturbed, without Ray."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    assert run_command(command(pictures, output)) == 0
    return output


def command(pictures, output):
    return ("batch", pictures, "--output", output, *QUICK, "--batch-size", "2", "--dtype", "float32")


def start_on_ray(pictures, output):
    """Start a run in a session of its own, which contains all processes of Ray."""
    return subprocess.Popen(
        [sys.executable, "-m", "holistic_cam_plugin", *map(str, command(pictures, output)), "--ray"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=output.with_suffix(".err").open("wb"),
    )  # fmt: skip


def find_maps(output):
    return sorted(path.relative_to(output).as_posix() for path in (output / "maps").rglob("*.npz"))


def list_actors(session):
    """List the living actors that explain."""
    return [number for number in list_living(session) if read_name(number).startswith("ray::MapWorker")]


def read_name(number):
    try:
        return Path(f"/proc/{number}/cmdline").read_text()
    except OSError:
        return ""


def check_maps(output, whole):
    assert find_maps(output) == find_maps(whole)
    for name in find_maps(whole):
        with np.load(output / name) as found, np.load(whole / name) as expected:
            assert found["maps"].dtype == np.float32
            assert np.abs(found["maps"] - expected["maps"]).max() <= 1e-6, name


def until_all_ended(sessions):
    """Wait for the end of all processes; two that serve Ray's dashboard notice the driver's death after a minute."""
    end = time.monotonic() + PATIENCE
    while living := [read_name(number) for session in sessions for number in list_living(session)]:
        assert time.monotonic() < end, living
        time.sleep(0.1)


def test_sigkill_of_actors(pictures, whole, tmp_path):
    deaths, chance, session = 0, random.Random(0), 0
    while deaths < ROUNDS:
        output = tmp_path / f"output-{(session := session + 1)}"
        process, known = start_on_ray(pictures, output), 0
        while deaths < ROUNDS:
            wait_for(lambda output=output, known=known: len(find_maps(output)) > known, process)
            time.sleep(chance.uniform(0, 1))
            known, actors = len(find_maps(output)), list_actors(process.pid)
            if known >= COUNT - 4 or not actors:  # nobody would wait for the victim
                break
            os.kill(chance.choice(actors), signal.SIGKILL)
            deaths += 1
        assert process.wait(PATIENCE) == 0, output.with_suffix(".err").read_text()
        until_all_ended([process.pid])
        check_maps(output, whole)


def test_sigkill_of_the_driver(pictures, whole, tmp_path):
    sessions = []
    for number in range(ROUNDS):
        output, chance, killed = tmp_path / f"output-{number}", random.Random(number), False
        while not killed:
            process = start_on_ray(pictures, output)
            if chance.random() < 0.7:  # at work, or else while Ray starts
                done = len(find_maps(output))
                wait_for(lambda output=output, done=done: len(find_maps(output)) > done, process)
            time.sleep(chance.uniform(0, 3))
            killed = process.poll() is None
            process.kill()
            process.wait(PATIENCE)
            sessions.append(process.pid)
        if number % 10 == 0:
            assert start_on_ray(pictures, output).wait(PATIENCE) == 0
        else:  # a run without Ray is quicker
            assert run_command(command(pictures, output)) == 0
        check_maps(output, whole)
    until_all_ended(sessions)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_all_processes(pictures, whole, tmp_path, number):
    for round_ in range(ROUNDS):
        output, chance = tmp_path / f"output-{round_}", random.Random(round_)
        process = start_on_ray(pictures, output)
        wait_for(lambda output=output: find_maps(output), process)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(number)
        code = process.wait(PATIENCE)
        until_all_ended([process.pid])
        if code != 0:  # else the signal came too late
            assert code == 128 + number
            line = output.with_suffix(".err").read_text().splitlines()[-1]
            assert line.startswith(f"holistic-cam batch: stopped by {number.name}: finished maps are saved")
        assert run_command(command(pictures, output)) == 0
        check_maps(output, whole)
