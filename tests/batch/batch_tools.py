"""Test helpers: small pictures, a quick command, processes, and the content of an output folder."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch import ranks
from holistic_cam_plugin.batch.parameters import claim_folder
from tests.processes import PATIENCE, context, start

# The bundled model at one small scale.
QUICK = ("--model", "digits", "--sizes", "64", "--device", "cpu", "--threads", "1")


def make_pictures(folder, count, seed=0, size=(40, 30)):
    """Make pictures of noise, every second one in a subfolder; return their names."""
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
    """Read every file but the lock, which may or may not be left; the manifest without its seconds."""
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


def start_command(command, kill_at=None, variables=None, said=os.devnull):
    """Start the command line in a session of its own.

    Args:
        kill_at: The process kills itself at this disk operation.
        variables: Environment variables.
        said: The file that receives its output.
    """
    return start(_work, [str(part) for part in command], kill_at, variables or {}, out=said)


def run_command(command):
    """Run the command line in a process of its own; return its exit code."""
    process = start_command(command)
    process.join(PATIENCE)
    return process.exitcode


def find_free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def make_rank_variables(rank, world, port):
    """Return the environment variables that a launcher sets."""
    variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in variables.items()}


def start_ranks(command, world, said=lambda rank: os.devnull):
    """Start the ranks of a run without a launcher; each prints to its own file."""
    port = find_free_port()
    return [
        start_command(command, variables=make_rank_variables(rank, world, port), said=said(rank))
        for rank in range(world)
    ]


def list_processes():
    """List the living processes."""
    return [number for number, _ in _processes()]


def list_living(session):
    """List the living processes of a session, according to /proc."""
    return [number for number, fields in _processes() if int(fields[3]) == session]


def list_children(parent):
    """List the living child processes."""
    return [number for number, fields in _processes() if int(fields[1]) == parent]


def _processes():
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(status.parent.name), fields


def start_holder(folder):
    """Start a process that holds the folder's lock; return it, and the id of its child, which only sleeps."""
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(folder, there))
    process.start()
    return process, here.recv()


def kill(process):
    """Kill the process; return whether it was still running."""
    process.kill()
    process.join(PATIENCE)
    return process.exitcode == -signal.SIGKILL


def _hold(folder, pipe):
    with claim_folder(folder, {"threads": 1}, 1):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(PATIENCE,))
        child.start()
        pipe.send(child.pid)
        time.sleep(PATIENCE)


def _work(command, kill_at, variables):
    os.environ.update(variables)
    ranks.SILENCE_SECONDS, ranks.START_SECONDS = 20, 120  # tests don't wait for minutes
    if kill_at is not None:
        _kill_at(kill_at)
    return main(command)


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
