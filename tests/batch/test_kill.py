"""Kill -9 at random moments and at every step on the disk; SIGTERM; several ranks. The end is always the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.batch.batch_tools import QUICK, children, killed, make_pictures, rows, started, tree

ROOT = Path(__file__).parents[2]
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
    """What a run leaves that nobody disturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    finish(command(pictures, output))
    return tree(output)


def command(pictures, output):
    return ("batch", pictures, "--output", output, *QUICK, "--workers", "1", "--batch-size", "3")


def finish(arguments):
    process = started(arguments)
    process.join(120)
    assert process.exitcode == 1  # one broken picture


def test_sigkill_at_random_moments(pictures, whole, tmp_path):
    assert len(whole) == COUNT + 3
    chance = random.Random(0)
    kills = folders = 0
    while kills < KILLS:
        output = tmp_path / f"output {(folders := folders + 1)}"
        for _ in range(6):
            process = started(command(pictures, output))
            # Some maps later than it began, and a little, which may be in the middle of anything.
            wait_for_maps(output, maps(output) + chance.randrange(4), process)
            time.sleep(chance.uniform(0, 0.1))
            kills += killed(process)
        finish(command(pictures, output))
        assert tree(output) == whole
        assert folders < KILLS


def maps(output):
    return len(list(output.rglob("*.npz")))


def wait_for_maps(output, count, process):
    wait(lambda: maps(output) >= count, process)


def wait(condition, process=None):
    """Until it is so, or the process has ended."""
    deadline = time.monotonic() + 180
    while not condition() and (process is None or process.is_alive()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_sigkill_at_every_step_on_the_disk(tmp_path):
    pictures = tmp_path / "pictures"
    make_pictures(pictures, 2)
    arguments = ("batch", pictures, *QUICK, "--workers", "0", "--overlays", "--output")
    started((*arguments, tmp_path / "whole")).join(60)
    whole = tree(tmp_path / "whole")
    assert len(whole) == 2 * 2 + 3
    step, deaths = 0, 0
    while True:
        output = tmp_path / f"output {step}"
        process = started((*arguments, output), kill_at=step)
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        again = started((*arguments, output))
        again.join(60)
        assert again.exitcode == 0
        assert tree(output) == whole, step
        step += 1
    assert deaths > 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_cleanly(pictures, tmp_path, number):
    output = tmp_path / "output"
    slow = (*command(pictures, output), "--sizes", "64", "400")  # there is time to stop it
    process = started(slow)
    wait_for_maps(output, 1, process)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    assert not list(output.glob(".part-*"))
    assert 0 < maps(output) < COUNT
    finish(slow)
    assert maps(output) == len(rows(output)) == COUNT


def torchrun(ranks, arguments, kill=None):
    """Run the command line under torchrun; exit code and what it said."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    process = subprocess.Popen(
        [*launcher, "-m", "holistic_cam_plugin", *map(str, arguments)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        if kill is not None:
            kill(process)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def test_two_ranks_then_another_number_of_them(pictures, whole, tmp_path):
    output = tmp_path / "output"
    code, out, _ = torchrun(2, command(pictures, output))
    assert code == 1
    assert f"{COUNT} images explained" in out
    assert "1 failed" in out
    assert tree(output) == whole
    for name in ("picture 0.jpg.npz", "picture 8.jpg.npz"):
        (output / "maps" / name).unlink()
    finish(command(pictures, output))
    assert tree(output) == whole


def test_a_rank_that_dies_leaves_the_rest_consistent(pictures, whole, tmp_path):
    output = tmp_path / "output"

    def kill_second_rank(launcher):
        wait((output / "manifest-1.csv").exists)
        for child in children(launcher.pid):
            if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                os.kill(child, signal.SIGKILL)
                return
        raise AssertionError("no second rank found")

    if not Path("/proc/self/environ").exists():
        pytest.skip("the ranks' processes are found in /proc")
    code, *_ = torchrun(2, command(pictures, output), kill_second_rank)
    assert code == 1
    finish(command(pictures, output))
    assert tree(output) == whole
    assert len(rows(output)) == COUNT
