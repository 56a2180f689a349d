"""Test helpers: small pictures, a quick command, processes, and the content of an output folder."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.record import Record
from tests.processes import PATIENCE, start

# The bundled model at one small scale.
QUICK = ("--model", "digits", "--sizes", "64", "--device", "cpu")


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


class Close:
    """Arrays or numbers that are equal to others within the rounding of float16, or of float32."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __eq__(self, other):
        return len(self.arrays) == len(other.arrays) and all(map(is_close, self.arrays, other.arrays))

    __hash__ = None


def is_close(one, other):
    atol = {np.float16: 2e-3, np.uint8: 8}.get(one.dtype.type, 1e-5)  # uint8: colours after JPEG
    if one.dtype.kind not in "fu":
        return one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and np.allclose(one, other, 1e-4, atol, True)


def tree(folder):
    """Read every file but the record and its lock; maps, overlays and the manifest's numbers are compared closely."""
    files = {}
    for path in Path(folder).rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith((".lock", "record.sqlite", "manifest.parquet")):
            files[name] = read_closely(path)
    return files


def read_closely(path):
    if path.suffix == ".npz":
        with np.load(path) as file:
            return Close(*(file[name] for name in sorted(file.files)))
    if path.suffix == ".jpg":
        with Image.open(path) as image:
            return Close(np.asarray(image))
    if path.name != "manifest.csv":
        return path.read_bytes()
    numbers = ("label_probability", "score", "probability")
    table = rows(path.parent)
    skipped = {*numbers, "seconds", "coverage"}
    texts = [{key: value for key, value in row.items() if key not in skipped} for row in table]
    return texts, Close(np.array([[float(row[name] or "nan") for name in numbers] for row in table], np.float64))


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


def kill(process):
    """Kill the process; return whether it was still running."""
    process.kill()
    process.join(PATIENCE)
    return process.exitcode == -signal.SIGKILL


def _work(command, kill_at, variables):
    os.environ.update(variables)
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
    Record.add = stepping(Record.add)
    Path.replace = stepping(Path.replace)
    Path.unlink = stepping(Path.unlink)
    Path.mkdir = stepping(Path.mkdir)
