"""SIGKILL, Ctrl-C and a full disk at random moments: nothing lives on, the folder is free, the maps are the same.

HOSTILE_ROUNDS=1 disturbs a run once in each way.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from holistic_cam_plugin.batch.record import RECORD, Record, read_record
from holistic_cam_plugin.errors import UsageError
from tests.batch.batch_tools import (
    QUICK,
    kill,
    list_children,
    list_living,
    make_pictures,
    rows,
    run_command,
    start_command,
)
from tests.processes import PATIENCE

ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "20"))
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
    """The maps of a run that nobody disturbed, and its seconds."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    start = time.monotonic()
    assert run_command(command(pictures, output)) == 0
    return read_maps(output), time.monotonic() - start


def command(pictures, output):
    return ("batch", pictures, "--output", output, *QUICK, "--dtype", "float32", "--workers", "2", "--batch-size", "2")


def read_maps(output):
    maps = {}
    for path in output.rglob("*.npz"):
        with np.load(path) as file:
            maps[path.relative_to(output).as_posix()] = file["maps"]
    return maps


def check_complete(output, pictures, whole):
    """Run the command again: the folder is complete, and each map is that of an undisturbed run."""
    assert run_command(command(pictures, output)) == 0
    maps = read_maps(output)
    assert maps.keys() == whole.keys()
    assert len(maps) == COUNT
    for name, saliency_maps in maps.items():
        assert np.abs(saliency_maps - whole[name]).max() <= 1e-6
    assert sorted(row["map"] for row in rows(output)) == sorted(maps)
    assert rows(output, "errors.csv") == []
    with read_record(output) as record:
        assert record.connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert {path.name for path in output.iterdir()} <= {
        ".lock", RECORD, "maps", "manifest.csv", "manifest.parquet", "errors.csv",
    }  # fmt: skip


def is_free(folder):
    """Whether no run holds the folder's lock."""
    try:
        Record(folder / RECORD, write=True).close()
        return True
    except UsageError:
        return False


def check_gone(process, output):
    deadline = time.monotonic() + PATIENCE
    while list_living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list_living(process.pid)
    assert not output.exists() or is_free(output)


def disturb(pictures, output, chance, seconds, number):
    """Send a signal at random moments until it arrives during a run; return the exit code."""
    while True:
        process = start_command(command(pictures, output))
        time.sleep(chance.uniform(0, seconds))
        if number == signal.SIGKILL:
            kill(process)
        else:
            # Not to its group: at the first moment the process is still in that of the tests.
            with suppress(ProcessLookupError):  # it has ended, and the server that started it knows
                os.kill(process.pid, number)
        process.join(PATIENCE)
        check_gone(process, output)
        if process.exitcode != 0:
            return process.exitcode


def test_a_run_is_one_process(pictures, tmp_path):
    process = start_command(command(pictures, tmp_path / "output"))
    most = 0
    while process.is_alive():
        time.sleep(0.02)
        most = max(most, len(list_living(process.pid)), 1 + len(list_children(process.pid)))
    assert process.exitcode == 0
    assert most == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_at_a_random_moment(pictures, whole, tmp_path, number):
    maps, seconds = whole
    for turn in range(ROUNDS):
        output, chance = tmp_path / str(turn), random.Random(turn)
        code = disturb(pictures, output, chance, seconds, number)
        assert code in ((-signal.SIGKILL,) if number == signal.SIGKILL else (130, -signal.SIGINT, 1))
        check_complete(output, pictures, maps)


def test_a_disk_that_fills_up(pictures, whole, tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted), capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        for turn in range(ROUNDS):
            size, output = random.Random(turn).randrange(16, 2600), mounted / str(turn)
            subprocess.run(("mount", "-o", f"remount,size={size}k", mounted), check=True)
            process = start_command(command(pictures, output))
            process.join(PATIENCE)
            assert process.exitcode in (0, 2, 3), size
            check_gone(process, mounted / "none")
            subprocess.run(("mount", "-o", "remount,size=64m", mounted), check=True)
            check_complete(output, pictures, whole[0])
            subprocess.run(("find", mounted, "-mindepth", "1", "-delete"), check=True)
    finally:
        subprocess.run(("umount", mounted), check=True)
