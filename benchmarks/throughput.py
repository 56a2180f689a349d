"""Images per second of `holistic-cam batch` in one process, and on Ray with a process per core.

The images are generated and have the size of photographs. Times start with the first batch and end with the last map on
disk; those on Ray without its start, which is a column of its own and lasts until the first maps arrive. The control is
as many independent processes, each with a share of the images, which shows what the machine can do. Running the same
command again adds rounds.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.harness.markdown import format_table
from benchmarks.harness.runner import run_main
from holistic_cam_plugin.errors import UsageError

__all__ = ["Measurement", "make_photos", "make_table", "measure", "measure_apart"]

# ImageNet's median photograph.
SIZE = (500, 375)
COLUMNS = ("model", "layers", "images", "processes", "seconds", "starting", "waiting")
# Suffixes of the number of processes; "apart" is the control.
ON_RAY, APART = " on Ray", " apart"

_SUMMARY = re.compile(r"(?P<images>\d+) images explained in (?P<seconds>[\d.]+) s")
_SHARE = {"starting": re.compile(r"starting Ray ([\d.]+)%"), "waiting": re.compile(r"waiting for data ([\d.]+)%")}


class Measurement(NamedTuple):
    """Measurements of one run."""

    images: int
    seconds: float  # without Ray's start
    starting: float  # seconds of Ray's start
    waiting: float  # percent of the time spent waiting for data, without Ray


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = _make_parser().parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "throughput.csv"
    options = ["--model", arguments.model, "--workers", str(arguments.workers)]
    for name in ("weights", "layers", "sizes", "device"):
        value = getattr(arguments, name)
        if value is not None:
            options += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    with tempfile.TemporaryDirectory() as folder:
        for number in tqdm(range(arguments.rounds), desc="rounds", disable=None):
            place, cores = Path(folder) / str(number), os.cpu_count() or 1
            runs = {
                "1": measure(place / "alone", arguments.images, options),
                f"{cores}{ON_RAY}": measure(place / "ray", arguments.images, [*options, "--ray"]),
                f"{cores}{APART}": measure_apart(place, arguments.images, cores, options),
            }
            for kind, run in runs.items():
                layers = " ".join(arguments.layers or ["last"])
                _append(path, [arguments.model, layers, run.images, kind, *run[1:]])
    print(make_table(path))


def make_photos(folder: Path, count: int) -> None:
    """Write smooth noise as JPEG files, which take as long to decode as photographs."""
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (38, 50, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=95)


def measure(folder: Path, images: int, options: Sequence[str]) -> Measurement:
    """Measure one run of the command line.

    Raises:
        UsageError: the run failed; with its message.
    """
    return _finish(_start(folder, images, options))


def measure_apart(folder: Path, images: int, processes: int, options: Sequence[str]) -> Measurement:
    """Measure the control: simultaneous runs that share the images.

    Raises:
        UsageError: see `measure`.
    """
    shares = [images // processes + (number < images % processes) for number in range(processes)]
    runs = [_start(folder / f"apart-{number}", share, options) for number, share in enumerate(shares)]
    results = [_finish(run) for run in runs]
    return Measurement(
        sum(result.images for result in results),
        max(result.seconds for result in results),
        0.0,
        statistics.mean(result.waiting for result in results),
    )


def make_table(path: Path) -> str:
    """Medians and ranges over the rounds, in Markdown."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    header = ["model, layers", "images", "processes", "images/s, median [range]", "times one process"]
    lines = []
    for kind in dict.fromkeys((row["model"], row["layers"], row["images"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["layers"], row["images"]) == kind]
        alone = None
        for processes in sorted({row["processes"] for row in mine}):
            some = [row for row in mine if row["processes"] == processes]
            rates = [int(row["images"]) / float(row["seconds"]) for row in some]
            median = statistics.median(rates)
            alone = median if processes == "1" else alone
            times = "" if alone is None else f"{median / alone:.2f}"
            rate = f"{median:.2f} [{min(rates):.2f}, {max(rates):.2f}]"
            started, waited = (statistics.median(float(row[name]) for row in some) for name in COLUMNS[-2:])
            on_ray = processes.endswith(ON_RAY)
            end = [f"{started:.1f}", ""] if on_ray else ["", f"{waited:.1f} %"]
            lines.append([f"{kind[0]}, {kind[1]}", kind[2], processes, rate, times, *end])
    return format_table([*header, "Ray's start, s", "waiting for data"], lines)


def _start(folder: Path, images: int, options: Sequence[str]) -> subprocess.Popen[str]:
    make_photos(folder / "photos", images)
    program = ["-m", "holistic_cam_plugin", "batch", str(folder / "photos"), "--output", str(folder / "maps")]
    return subprocess.Popen(
        [sys.executable, *program, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _finish(run: subprocess.Popen[str]) -> Measurement:
    output, error = run.communicate()
    summary = _SUMMARY.search(output)
    if run.returncode or summary is None:
        raise UsageError(f"the batch failed: {error}")
    shares = {name: float(match[1]) if (match := of.search(output)) else 0.0 for name, of in _SHARE.items()}
    starting = float(summary["seconds"]) * shares["starting"] / 100
    return Measurement(int(summary["images"]), float(summary["seconds"]) - starting, starting, shares["waiting"])


def _append(path: Path, values: Sequence[object]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(values)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="digits", help="torchvision classifier, or digits, the bundled model (digits)")
    add("--weights", type=Path, metavar="FILE", help="state dict (torchvision's default weights)")
    add("--layers", nargs="+", metavar="NAME", help="target layers (the model's last stage)")
    add("--sizes", type=int, nargs="+", metavar="PX", help="sizes of the pyramid (fast)")
    add("--images", type=int, default=40, metavar="N", help="images per run (40)")
    add("--workers", type=int, default=1, metavar="N", help="reading threads per process (1)")
    add("--rounds", type=int, default=3, metavar="N", help="number of rounds (3)")
    add("--device", default="cpu", help="such as cpu or cuda (cpu)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="folder of throughput.csv (output)")
    return parser


if __name__ == "__main__":
    run_main(main)
