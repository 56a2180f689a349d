"""Small pictures, a quick command, and what is left of a run when the times are taken out."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.parameters import claimed

# The bundled model at one small scale.
QUICK = ("--model", "digits", "--sizes", "64", "--device", "cpu", "--threads", "1")

# Its children start within milliseconds, from a process that has imported everything and run nothing.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["holistic_cam_plugin.__main__", "tests.batch.batch_tools"])


def make_pictures(folder, count, seed=0, size=(40, 30)):
    """Pictures of noise, every second one in a folder of its own; their names."""
    names = []
    for number in range(count):
        name = f"{'deeper/' if number % 2 else ''}picture {number}.jpg"
        make_picture(folder / name, seed + number, size)
        names.append(name)
    return sorted(names)


def make_picture(path, seed=0, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)


def rows(folder, name="manifest.csv"):
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tree(folder):
    """Every file's bytes but the lock's, which may be left or not; of the manifest all but the seconds."""
    files = {}
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.name != ".lock":
            data = path.read_bytes()
            if path.name == "manifest.csv":
                table = list(csv.reader(io.StringIO(data.decode(), newline="")))
                seconds = table[0].index("seconds")
                data = repr([row[:seconds] + row[seconds + 1 :] for row in table]).encode()
            files[path.relative_to(folder).as_posix()] = data
    return files


def started(command, kill_at=None):
    """The command line in a process group of its own; it kills itself at the `kill_at`-th step on the disk."""
    process = _context.Process(target=_work, args=([str(part) for part in command], kill_at))
    process.start()
    return process


def holder(folder):
    """A process that holds the folder's lock, and the number of its child, which holds nothing and sleeps."""
    here, there = _context.Pipe()
    process = _context.Process(target=_hold, args=(folder, there))
    process.start()
    return process, here.recv()


def killed(process):
    """Kill the process and its workers, if there is time; whether there was."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


def _hold(folder, pipe):
    with claimed(folder, {"threads": 1}, 1):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        pipe.send(child.pid)
        time.sleep(60)


def _work(command, kill_at):
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of the reading processes: the quickest
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if kill_at is not None:
        _kill_at(kill_at)
    os._exit(main(command))


def _kill_at(step):
    steps = iter(range(step))

    def stepping(function):
        def step_or_die(*arguments, **keywords):
            if next(steps, None) is None:
                os.killpg(0, signal.SIGKILL)
            return function(*arguments, **keywords)

        return step_or_die

    os.fsync = stepping(os.fsync)
    Path.replace = stepping(Path.replace)
    Path.unlink = stepping(Path.unlink)
    Path.mkdir = stepping(Path.mkdir)
