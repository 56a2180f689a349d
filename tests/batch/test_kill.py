"""SIGKILL at random moments and at every disk operation; SIGTERM; several ranks. The output is always the same."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.batch.batch_tools import (
    QUICK,
    kill,
    list_children,
    make_pictures,
    rows,
    run_command,
    start_command,
    start_ranks,
    tree,
)
from tests.processes import PATIENCE, wait_for

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
    assert len(whole) == COUNT + 3
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
    assert len(whole) == 2 * 2 + 3
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
    assert not list(output.glob(".part-*"))
    assert 0 < maps(output) < COUNT
    finish(slow)
    assert maps(output) == len(rows(output)) == COUNT


def torchrun(ranks, arguments, kill=None):
    """Run the command line under torchrun; return the exit code and its output."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    process = subprocess.Popen(
        [*launcher, "-m", "holistic_cam_plugin", *map(str, arguments)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        if kill is not None:
            kill(process)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def test_two_ranks_then_another_number_of_them(pictures, whole, tmp_path):
    output = tmp_path / "output"
    said = [tmp_path / f"{rank}.txt" for rank in range(2)]
    ranks = start_ranks(command(pictures, output), 2, said.__getitem__)
    for process in ranks:
        process.join(PATIENCE)
    assert [process.exitcode for process in ranks] == [1, 0]
    check_two_ranks(said[0].read_text(), output, whole)
    for name in ("picture 0.jpg.npz", "picture 8.jpg.npz"):
        (output / "maps" / name).unlink()
    finish(command(pictures, output))
    assert tree(output) == whole


@pytest.mark.campaign
def test_two_ranks_of_torchrun(pictures, whole, tmp_path):
    code, out, _ = torchrun(2, command(pictures, tmp_path / "output"))
    assert code == 1
    check_two_ranks(out, tmp_path / "output", whole)


def check_two_ranks(said, output, whole):
    assert f"{COUNT} images explained" in said
    assert "1 failed" in said
    assert tree(output) == whole


@pytest.mark.campaign
def test_a_rank_that_dies_leaves_the_rest_consistent(pictures, whole, tmp_path):
    output = tmp_path / "output"

    def kill_second_rank(launcher):
        wait_for((output / "manifest-1.csv").exists, launcher)
        for child in list_children(launcher.pid):
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
