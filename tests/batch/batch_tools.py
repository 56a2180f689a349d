"""Small pictures, a quick command, and what is left of a run when the times are taken out."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch import ranks
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


def started(command, kill_at=None, variables=None, said=os.devnull):
    """The command line in a session of its own.

    Args:
        kill_at: it kills itself at this step on the disk.
        variables: of its environment.
        said: the file that takes what it prints.
    """
    process = _context.Process(target=_work, args=([str(part) for part in command], kill_at, variables or {}, said))
    process.start()
    return process


def finished(command):
    """Exit code of the command line, when it has ended by itself."""
    process = started(command)
    process.join(120)
    return process.exitcode


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def rank_variables(rank, world, port):
    """What a launcher tells a rank."""
    variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in variables.items()}


def everyone():
    """All living processes."""
    return [number for number, _ in _processes()]


def living(session):
    """The living processes of a session, as /proc knows them."""
    return [number for number, fields in _processes() if int(fields[3]) == session]


def children(parent):
    """Its living child processes."""
    return [number for number, fields in _processes() if int(fields[1]) == parent]


def _processes():
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(status.parent.name), fields


def holder(folder):
    """A process that holds the folder's lock, and the number of its child, which holds nothing and sleeps."""
    here, there = _context.Pipe()
    process = _context.Process(target=_hold, args=(folder, there))
    process.start()
    return process, here.recv()


def killed(process):
    """Kill the process, if there is time; whether there was."""
    process.kill()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


def _hold(folder, pipe):
    with claimed(folder, {"threads": 1}, 1):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        pipe.send(child.pid)
        time.sleep(60)


def _work(command, kill_at, variables, said):
    os.setsid()
    os.environ.update(variables)
    sys.stdout = sys.stderr = Path(said).open("w", buffering=1)  # noqa: SIM115
    for descriptor in (1, 2):  # of PyTorch's C++
        os.dup2(sys.stdout.fileno(), descriptor)
    ranks.SILENCE_SECONDS, ranks.START_SECONDS = 10, 20  # tests don't wait for minutes
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
