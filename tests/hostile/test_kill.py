"""SIGKILL of the main process, a rank, the launcher: nothing lives on, the folder is free, the bytes are the same.

HOSTILE_ROUNDS=20 kills each of them twenty times.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from holistic_cam_plugin.batch.lock import lock_folder
from holistic_cam_plugin.errors import UsageError
from tests.batch.batch_tools import (
    QUICK,
    kill,
    list_children,
    list_living,
    list_processes,
    make_pictures,
    run_command,
    start_command,
    start_ranks,
    tree,
)
from tests.processes import PATIENCE

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))
COUNT = 12
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
    """What a run leaves that nobody disturbed, and its seconds."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    start = time.monotonic()
    assert run_command(command(pictures, output)) == 0
    assert len(tree(output)) == COUNT + 3
    return tree(output), time.monotonic() - start


def command(pictures, output):
    return ("batch", pictures, "--output", output, *QUICK, "--workers", "2", "--batch-size", "2")


def rounds(folder):
    """For every round a folder for the output and a source of chance."""
    for number in range(ROUNDS):
        yield folder / f"output-{number}", random.Random(number)


def is_free(folder):
    """Whether no run holds the folder's lock."""
    try:
        with lock_folder(folder):
            return True
    except UsageError:
        return False


def until(condition):
    """Whether it becomes true."""
    deadline = time.monotonic() + PATIENCE
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return true


def test_a_run_is_one_process(pictures, tmp_path):
    process = start_command(command(pictures, tmp_path / "output"))
    most = 0
    while process.is_alive():
        time.sleep(0.02)
        most = max(most, len(list_living(process.pid)), 1 + len(list_children(process.pid)))
    assert process.exitcode == 0
    assert most == 1


def test_sigkill_of_the_main_process(pictures, whole, tmp_path):
    bytes_of_all, seconds = whole
    for output, chance in rounds(tmp_path):
        deaths = 0
        while deaths == 0:
            process = start_command(command(pictures, output))
            time.sleep(chance.uniform(0, seconds))
            deaths += kill(process)
            assert until(lambda pid=process.pid: not list_living(pid))
            assert not output.exists() or is_free(output)
        assert run_command(command(pictures, output)) == 0
        assert tree(output) == bytes_of_all


def test_sigkill_of_a_rank_that_no_launcher_watches(pictures, whole, tmp_path):
    bytes_of_all, seconds = whole
    for output, chance in rounds(tmp_path):
        world = chance.choice([2, 3])
        victim, deaths, attempts = chance.randrange(world), 0, 0
        while deaths == 0:
            output = output.with_suffix(f".{(attempts := attempts + 1)}")
            said = [output.with_name(f"{output.name}-{rank}.txt") for rank in range(world)]
            ranks = start_ranks(command(pictures, output), world, said.__getitem__)
            assert until((output / ".lock").exists)
            time.sleep(chance.uniform(0, seconds))
            deaths += kill(ranks[victim])
            if deaths and victim == 0:
                assert until(lambda every=ranks: not any(list_living(rank.pid) for rank in every))
            for process in ranks:
                process.join(PATIENCE)
                assert not list_living(process.pid)
        check_last_words(ranks, said, victim)
        assert is_free(output)
        assert run_command(command(pictures, output)) == 0
        assert tree(output) == bytes_of_all


def check_last_words(ranks, said, victim):
    texts = [file.read_text() for file in said]
    for rank, process in enumerate(ranks):
        if rank == victim:
            continue
        words = [line for line in texts[rank].splitlines() if line.startswith("holistic-cam batch: ")]
        assert "Traceback" not in texts[rank]
        if process.exitcode == 0:  # its share was done
            assert words == []
        elif victim == 0:
            assert process.exitcode in (2, 3), texts  # 2: there never was a first rank
            assert len(words) == 1, texts
            assert re.search("the first rank or the launcher has died|rank 0 died|cannot connect the ranks", words[0])
        else:  # the first rank alone waits for the others
            assert (rank, process.exitcode) == (0, 3), texts
            reason = f"rank {victim} died or never started: finished maps are saved; run the same command again"
            assert [line.partition(" to continue")[0] for line in words] == [
                f"holistic-cam batch: stopped: {reason}"
            ], texts


class Torchrun:
    """Two ranks under torchrun, found in /proc by a variable of their own."""

    def __init__(self, arguments, *options):
        self.mark = f"HOLISTIC_CAM_TEST={uuid.uuid4()}"
        name, value = self.mark.split("=")
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options)
        self.process = subprocess.Popen(
            [*launcher, "-m", "holistic_cam_plugin", *map(str, arguments)],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", name: value}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in self.list_living():
            os.kill(number, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def list_living(self, variable=""):
        """All of its processes, or those with this variable too."""
        self.process.poll()  # lets a dead launcher go
        return [number for number in list_processes() if {self.mark, variable} <= {*environment(number), ""}]

    def described(self):
        return [(number, Path(f"/proc/{number}/cmdline").read_text().split("\0")) for number in self.list_living()]

    def ranks(self):
        return self.list_living("WORLD_SIZE=2")

    def waited(self, chance, output, seconds):
        """Wait until the ranks exist or are at work, and then a little."""
        first = chance.choice([self.ranks, lambda: list(output.rglob("*.npz"))])
        assert until(lambda: first() or self.process.poll() is not None)
        time.sleep(chance.uniform(0, seconds))


def environment(number):
    try:
        return Path(f"/proc/{number}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


def test_sigkill_of_a_rank_under_torchrun(pictures, whole, tmp_path):
    bytes_of_all, seconds = whole
    for output, chance in rounds(tmp_path):
        with Torchrun(command(pictures, output)) as run:
            run.waited(chance, output, seconds)
            for number in run.ranks()[:1]:
                os.kill(number, signal.SIGKILL)
            assert until(lambda every=run: not every.list_living()), run.described()
        assert not output.exists() or is_free(output)
        assert run_command(command(pictures, output)) == 0
        assert tree(output) == bytes_of_all


def test_sigkill_of_torchrun(pictures, whole, tmp_path):
    bytes_of_all, seconds = whole
    for output, chance in rounds(tmp_path):
        with Torchrun(command(pictures, output)) as run:
            run.waited(chance, output, seconds)
            run.process.kill()
            assert until(lambda every=run: not every.list_living()), run.described()
        assert not output.exists() or is_free(output)
        assert run_command(command(pictures, output)) == 0
        assert tree(output) == bytes_of_all


def test_torchrun_starts_killed_ranks_again(pictures, whole, tmp_path):
    bytes_of_all, seconds = whole
    for output, chance in rounds(tmp_path):
        with Torchrun(command(pictures, output), "--max-restarts", "2") as run:
            run.waited(chance, output, seconds)
            for number in run.ranks()[-1:]:
                os.kill(number, signal.SIGKILL)
            assert run.process.wait(PATIENCE) == 0
            assert not run.list_living()
        assert tree(output) == bytes_of_all
