"""Time and memory of Holistic-CAM beside its floor, CAMERAS and the library's methods: `python -m benchmarks.latency`.

The floor is the model's forward passes over the same sizes, nothing else. Every round runs every procedure once, one
after the other, after a warm-up at small sizes; the ratios are those of the same round. Peak memory is that of a fresh
process for each procedure, over the process with the model loaded. The same command given again adds rounds.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.harness.procedures import (
    BFLOAT16,
    FLOORS,
    PROCEDURES,
    TARGETS,
    Fused,
    Setting,
    autocast,
    holistic,
    synchronize,
)
from benchmarks.harness.runner import command
from benchmarks.latency_report import COLUMNS, HOLISTIC, latency_tables
from holistic_cam_plugin import pyramid_sizes
from holistic_cam_plugin.classifiers.models import chosen_device, load_classifier
from holistic_cam_plugin.errors import UsageError

__all__ = ["peak_memory", "timed_round"]

LAYERS = {
    "resnet50": ("layer4", "layer2"),
    "vgg16": ("features.30", "features.16"),
    "squeezenet1_0": ("features.12", "features.7"),
}
SIDE = 224
SIZES = [height for height, _ in pyramid_sizes(SIDE, SIDE)]
STATUS = Path("/proc/self/status")

Measurement = dict[str, object]  # the columns of the table but for those of the whole run


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args(argv)
    for name in arguments.procedures:
        if name not in PROCEDURES:
            raise UsageError(f"no procedure {name!r}; known: {'; '.join(PROCEDURES)}")
    device = chosen_device(arguments.device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = arguments.output / "latency.csv"
    if arguments.memory is not None:
        setting = _settings(arguments, device, arguments.batch_sizes[0])[0]
        print(json.dumps(peak_memory(setting, arguments.memory, arguments.precisions[0])))
        return
    for batch in arguments.batch_sizes:
        settings = _settings(arguments, device, batch)
        if arguments.rounds:
            timed_round([s._replace(sizes=SIZES[:2]) for s in settings], arguments.procedures, arguments.precisions)
        for _ in tqdm(range(arguments.rounds), desc=f"{arguments.model}, batch {batch}", disable=None):
            _append(table, arguments, batch, timed_round(settings, arguments.procedures, arguments.precisions))
        if arguments.rounds:
            _append(table, arguments, batch, _correlations(settings, arguments.precisions))
        if not arguments.no_memory:
            _append(table, arguments, batch, _memory_rows(arguments, device, batch))
    print(latency_tables([table]))


def timed_round(settings: Sequence[Setting], procedures: Sequence[str], precisions: Sequence[str]) -> list[Measurement]:
    """Every procedure once in every layer, in seconds; the floors, which know no layer, in the first alone."""
    rows: list[Measurement] = []
    for precision in precisions:
        for place, setting in enumerate(settings):
            for name in procedures:
                floor = name in FLOORS
                if (floor and place > 0) or (precision == "bfloat16" and name not in BFLOAT16):
                    continue
                with autocast(setting.images.device, precision):
                    synchronize(setting.images.device)
                    start = time.perf_counter()
                    result = PROCEDURES[name](setting)
                    synchronize(setting.images.device)
                    seconds = time.perf_counter() - start
                row: Measurement = {"layer": "-" if floor else setting.layer, "precision": precision}
                rows.append(row | {"procedure": name, "measure": "seconds", "value": seconds})
                if name == HOLISTIC and isinstance(result, Fused):
                    rows.append(row | {"procedure": name, "measure": "fusion seconds", "value": result.fusion_seconds})
    return rows


def peak_memory(setting: Setting, procedure: str, precision: str = "float32") -> dict[str, int]:
    """Bytes that a procedure takes at its peak over what the process holds before it.

    On a CPU the resident memory, which Linux alone tells; on a GPU what PyTorch allocates there.

    Raises:
        UsageError: a CPU of another system.
    """
    device = setting.images.device
    run: Callable[[Setting], Any] = PROCEDURES[procedure]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with autocast(device, precision):
            run(setting)
        return {"bytes": torch.cuda.max_memory_allocated(device) - before}
    if not STATUS.exists():
        raise UsageError("peak memory on a CPU is read from /proc, which this system lacks: use --no-memory")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    with autocast(device, precision):
        run(setting)
    return {"bytes": _status("VmHWM") - before}


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _memory_rows(arguments: argparse.Namespace, device: torch.device, batch: int) -> list[Measurement]:
    rows: list[Measurement] = []
    layers = _layers(arguments)
    for name in tqdm(arguments.procedures, desc="memory", disable=None):
        for layer in layers[:1] if name in FLOORS else layers:
            options = ["--model", arguments.model, "--layers", layer, "--device", str(device)]
            options += ["--batch-sizes", str(batch)]
            options += [] if arguments.weights is None else ["--weights", str(arguments.weights)]
            line = [sys.executable, "-m", "benchmarks.latency", *options, "--memory", name]
            found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
            place = "-" if name in FLOORS else layer
            row = {"layer": place, "precision": "float32", "procedure": name}
            rows.append(row | {"measure": "bytes", "value": found["bytes"]})
    return rows


def _correlations(settings: Sequence[Setting], precisions: Sequence[str]) -> list[Measurement]:
    """Spearman's correlation of Holistic-CAM's map in each lower precision with the one in float32."""
    rows: list[Measurement] = []
    lower = [precision for precision in precisions if precision != "float32"]
    for setting in settings if lower else ():
        maps = {}
        for precision in ["float32", *lower]:
            with autocast(setting.images.device, precision):
                maps[precision] = holistic(setting).maps
        for precision in lower:
            value = float(spearmanr(maps["float32"].ravel(), maps[precision].ravel()).statistic)
            row = {"layer": setting.layer, "precision": precision, "procedure": HOLISTIC}
            rows.append(row | {"measure": "spearman", "value": value})
    return rows


def _settings(arguments: argparse.Namespace, device: torch.device, batch: int) -> list[Setting]:
    model = load_classifier(
        arguments.model, arguments.weights, None, str(device), untrained=arguments.weights is None
    ).model
    images = _images(batch).to(device)
    with torch.inference_mode():
        classes = model(images[:1])[0].topk(TARGETS).indices.tolist()
    return [Setting(model, layer, images, SIZES, classes) for layer in _layers(arguments)]


def _images(batch: int) -> Tensor:
    """Smooth noise: what the passes cost does not depend on it."""
    noise = torch.randn(batch, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=(SIDE, SIDE), mode="bicubic", align_corners=False)


def _layers(arguments: argparse.Namespace) -> list[str]:
    if arguments.layers is None and arguments.model not in LAYERS:
        raise UsageError(f"name the --layers of {arguments.model}; they are known for {', '.join(LAYERS)}")
    return list(arguments.layers or LAYERS[arguments.model])


def _append(path: Path, arguments: argparse.Namespace, batch: int, rows: Sequence[Measurement]) -> None:
    """Add one round to the table."""
    known = sum(1 for _ in path.open(encoding="utf-8")) if path.exists() else 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not known:
            writer.writeheader()
        # The line that a round begins on is a name for it that no other round has.
        writer.writerows(row | {"model": arguments.model, "batch": batch, "round": known} for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="resnet50", help="a torchvision classifier (resnet50)")
    add("--weights", type=Path, metavar="FILE", help="state dict (random weights)")
    add("--layers", nargs="+", metavar="NAME", help=f"target layers (known for {', '.join(LAYERS)})")
    add("--batch-sizes", type=int, nargs="+", default=[1, 4], metavar="N", help="images at once (1 4)")
    add("--procedures", nargs="+", default=list(PROCEDURES), metavar="NAME", help="; ".join(PROCEDURES))
    add("--precisions", nargs="+", default=["float32", "bfloat16"], choices=["float32", "tf32", "bfloat16"])
    add("--rounds", type=int, default=5, help="of all the procedures (5)")
    add("--no-memory", action="store_true", help="time alone")
    add("--device", help="such as cpu or cuda (a GPU if there is one)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="for latency.csv (output)")
    add("--memory", metavar="PROCEDURE", help=argparse.SUPPRESS)  # what a fresh process is asked for
    return parser


if __name__ == "__main__":
    command(main)
