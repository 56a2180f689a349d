"""Time and memory of Holistic-CAM, its lower bound, CAMERAS and methods of pytorch-grad-cam.

The lower bound, called floor, is the forward passes of the same sizes. After a warm-up at small sizes, each round runs
every procedure once; ratios are those of the same round. Peak memory is measured in a fresh process per procedure, less
the memory of the process with the model loaded. Running the same command again adds rounds.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.harness.procedures import (
    BFLOAT16,
    CLASS,
    PROCEDURES,
    TARGETS,
    WITHOUT_LAYER,
    Fused,
    Setting,
    autocast,
    run_holistic,
    synchronize,
)
from benchmarks.harness.runner import run_main
from benchmarks.latency_report import COLUMNS, HOLISTIC, make_latency_tables
from holistic_cam_plugin import pyramid_sizes
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import choose_device, load_classifier

__all__ = ["measure_peak_memory", "time_round"]

LAYERS = {
    "resnet50": ("layer4", "layer2"),
    "vgg16": ("features.30", "features.16"),
    "squeezenet1_0": ("features.12", "features.7"),
    "efficientnet_lite0": ("bn2", "blocks.4"),
    "timm/vit_tiny_patch16_224": ("blocks.11.norm1", "blocks.6"),
}
SIDE = 224
SIZES = [height for height, _ in pyramid_sizes(SIDE, SIDE)]
STATUS = Path("/proc/self/status")

Measurement = dict[str, object]  # columns of the table without those of the whole run


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = _make_parser().parse_args(argv)
    for name in arguments.procedures:
        if name not in PROCEDURES:
            raise UsageError(f"no procedure {name!r}; known: {'; '.join(PROCEDURES)}")
    device = choose_device(arguments.device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = arguments.output / "latency.csv"
    if arguments.memory is not None:
        setting = _make_settings(arguments, device, arguments.batch_sizes[0])[0]
        print(json.dumps(measure_peak_memory(setting, arguments.memory, arguments.precisions[0])))
        return
    for batch in arguments.batch_sizes:
        settings = _make_settings(arguments, device, batch)
        if arguments.rounds:
            time_round([s._replace(sizes=SIZES[:2]) for s in settings], arguments.procedures, arguments.precisions)
        for _ in tqdm(range(arguments.rounds), desc=f"{arguments.model}, batch {batch}", disable=None):
            _append(table, arguments, batch, time_round(settings, arguments.procedures, arguments.precisions))
        if arguments.rounds:
            _append(table, arguments, batch, _correlate(settings, arguments.precisions))
        if not arguments.no_memory:
            _append(table, arguments, batch, _measure_memory(arguments, device, batch))
    print(make_latency_tables([table]))


def time_round(settings: Sequence[Setting], procedures: Sequence[str], precisions: Sequence[str]) -> list[Measurement]:
    """Time every procedure once in every layer; floors do not depend on the layer and run once."""
    rows: list[Measurement] = []
    for precision in precisions:
        for place, setting in enumerate(settings):
            for name in procedures:
                floor = name in WITHOUT_LAYER
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
                if name in (HOLISTIC, CLASS) and isinstance(result, Fused):
                    rows.append(row | {"procedure": name, "measure": "fusion seconds", "value": result.fusion_seconds})
    return rows


def measure_peak_memory(setting: Setting, procedure: str, precision: str = "float32") -> dict[str, int]:
    """Measure a procedure's peak memory in bytes, less the memory before it.

    On a CPU this is the resident memory, which needs Linux; on a GPU it is the memory that PyTorch allocates.

    Raises:
        UsageError: the device is a CPU, and the system is not Linux.
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
        raise UsageError("peak memory on a CPU is read from /proc, which this system does not have: use --no-memory")
    with suppress(OSError, AttributeError):  # not with every C library
        ctypes.CDLL(None).malloc_trim(0)  # what earlier passes have freed does not count as there already
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _read_status("VmRSS")
    with autocast(device, precision):
        run(setting)
    return {"bytes": _read_status("VmHWM") - before}


def _read_status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _measure_memory(arguments: argparse.Namespace, device: torch.device, batch: int) -> list[Measurement]:
    rows: list[Measurement] = []
    layers = _choose_layers(arguments)
    for name in tqdm(arguments.procedures, desc="memory", disable=None):
        for layer in layers[:1] if name in WITHOUT_LAYER else layers:
            options = ["--model", arguments.model, "--layers", layer, "--device", str(device)]
            options += ["--batch-sizes", str(batch)]
            options += [] if arguments.weights is None else ["--weights", str(arguments.weights)]
            line = [sys.executable, "-m", "benchmarks.latency", *options, "--memory", name]
            found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
            place = "-" if name in WITHOUT_LAYER else layer
            row = {"layer": place, "precision": "float32", "procedure": name}
            rows.append(row | {"measure": "bytes", "value": found["bytes"]})
    return rows


def _correlate(settings: Sequence[Setting], precisions: Sequence[str]) -> list[Measurement]:
    """Correlate Holistic-CAM's maps in each lower precision with those in float32."""
    rows: list[Measurement] = []
    lower = [precision for precision in precisions if precision != "float32"]
    for setting in settings if lower else ():
        maps = {}
        for precision in ["float32", *lower]:
            with autocast(setting.images.device, precision):
                maps[precision] = run_holistic(setting).maps
        for precision in lower:
            value = float(spearmanr(maps["float32"].ravel(), maps[precision].ravel()).statistic)
            row = {"layer": setting.layer, "precision": precision, "procedure": HOLISTIC}
            rows.append(row | {"measure": "spearman", "value": value})
    return rows


def _make_settings(arguments: argparse.Namespace, device: torch.device, batch: int) -> list[Setting]:
    classifier = load_classifier(
        arguments.model, arguments.weights, None, str(device), untrained=arguments.weights is None
    )
    images = _make_images(batch).to(device)
    with torch.inference_mode():
        classes = classifier.model(images[:1])[0].topk(TARGETS).indices.tolist()
    return [
        Setting(classifier.model, layer, images, SIZES, classes, classifier.at([layer]).options)
        for layer in _choose_layers(arguments)
    ]


def _make_images(batch: int) -> Tensor:
    """Make smooth noise; the cost does not depend on the images."""
    noise = torch.randn(batch, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=(SIDE, SIDE), mode="bicubic", align_corners=False)


def _choose_layers(arguments: argparse.Namespace) -> list[str]:
    if arguments.layers is None and arguments.model not in LAYERS:
        raise UsageError(f"{arguments.model} needs --layers; defaults exist for {', '.join(LAYERS)}")
    return list(arguments.layers or LAYERS[arguments.model])


def _append(path: Path, arguments: argparse.Namespace, batch: int, rows: Sequence[Measurement]) -> None:
    """Append one round to the table."""
    known = sum(1 for _ in path.open(encoding="utf-8")) if path.exists() else 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not known:
            writer.writeheader()
        # The line number is a unique name of the round.
        writer.writerows(row | {"model": arguments.model, "batch": batch, "round": known} for row in rows)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="resnet50", help="as in holistic-cam --model (resnet50)")
    add("--weights", type=Path, metavar="FILE", help="state dict (random weights)")
    add("--layers", nargs="+", metavar="NAME", help=f"target layers (defaults exist for {', '.join(LAYERS)})")
    add("--batch-sizes", type=int, nargs="+", default=[1, 4], metavar="N", help="images per batch (1 4)")
    add("--procedures", nargs="+", default=list(PROCEDURES), metavar="NAME", help="; ".join(PROCEDURES))
    add("--precisions", nargs="+", default=["float32", "bfloat16"], choices=["float32", "tf32", "bfloat16"])
    add("--rounds", type=int, default=5, help="number of rounds (5)")
    add("--no-memory", action="store_true", help="do not measure memory")
    add("--device", help="such as cpu or cuda (a GPU if available)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="folder of latency.csv (output)")
    add("--memory", metavar="PROCEDURE", help=argparse.SUPPRESS)  # used in the fresh processes
    return parser


if __name__ == "__main__":
    run_main(main)
