"""Tables of time and memory: `python -m benchmarks.latency_report latency.csv [latency.csv ...]`.

Times are medians with quartiles, ratios are medians of the rounds' ratios with quartiles.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness.markdown import Labels, Source, format_table
from benchmarks.harness.procedures import CLASS, FLOORS, FORWARD, PASSES, TARGETS
from benchmarks.harness.runner import run_main

__all__ = ["COLUMNS", "HOLISTIC", "make_cost_table", "make_latency_tables"]

COLUMNS = ("model", "layer", "batch", "precision", "procedure", "measure", "round", "value")
HOLISTIC = "Holistic-CAM"
CAMERAS = "CAMERAS procedure"


class _Key(NamedTuple):
    layer: str
    batch: int
    precision: str
    procedure: str
    measure: str


# By round.
_Values = dict[int, float]


class _Model:
    """Measurements of one model."""

    def __init__(self) -> None:
        self.values: dict[_Key, _Values] = defaultdict(dict)

    def get(
        self, layer: str, batch: int, procedure: str, measure: str = "seconds", precision: str = "float32"
    ) -> _Values:
        """Values by round; the values of `floor` are those of the faster memory format."""
        if procedure == FORWARD:
            layer = "-"
        if procedure != "floor":
            return self.values.get(_Key(layer, batch, precision, procedure, measure), {})
        floors = [self.values.get(_Key("-", batch, precision, floor, measure), {}) for floor in FLOORS]
        seconds = [self.values.get(_Key("-", batch, precision, floor, "seconds"), {}) for floor in FLOORS]
        found = [(np.median(list(time.values())), floor) for time, floor in zip(seconds, floors, strict=True) if time]
        return min(found, key=lambda pair: pair[0])[1] if found else {}


def make_latency_tables(paths: Sequence[Path]) -> str:
    """Make the tables of one or several files, with headings, in Markdown."""
    parts = []
    for name, model in _read_models(paths).items():
        batches = sorted({key.batch for key in model.values})
        layers = list(dict.fromkeys(key.layer for key in model.values if key.layer != "-"))
        for batch in batches:
            parts += [f"**{name}, batch {batch}**", _make_times(model, layers, batch)]
        parts += [f"**{name}, ratios**", _make_ratios(model, layers, batches)]
    return "\n\n".join(parts)


def make_cost_table(source: Source, labels: Labels) -> str:
    """Make one table of medians, with a row per layer and a column per procedure.

    Args:
        source: with options `rows=MODEL:LAYER,...`, `columns=PROCEDURE,...` (`floor` is the faster memory format),
            optionally `batch=` (1), and `measure=bytes` for megabytes instead of seconds.
        labels: labels of rows and columns; the names of layers and procedures by default.
    """
    options = source.options
    rows, columns = (options[key].split(",") for key in ("rows", "columns"))
    measure = options.get("measure", "seconds")
    models = _read_models(source.paths)
    body = []
    for name, layer in (row.split(":") for row in rows):
        found = [models[name].get(layer, int(options.get("batch", "1")), column, measure) for column in columns]
        body.append([_format_median(list(values.values()), measure) for values in found])
    names = labels.rows if len(labels.rows) == len(rows) else [row.replace(":", ", ") for row in rows]
    header = labels.columns if len(labels.columns) == len(columns) else columns
    return format_table([labels.corner, *header], [[name, *cells] for name, cells in zip(names, body, strict=True)])


def _read_models(paths: Sequence[Path]) -> dict[str, _Model]:
    """Read the measurements, by model."""
    models: dict[str, _Model] = defaultdict(_Model)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = _Key(row["layer"], int(row["batch"]), row["precision"], row["procedure"], row["measure"])
                models[row["model"]].values[key][int(row["round"])] = float(row["value"])
    return models


def _make_times(model: _Model, layers: Sequence[str], batch: int) -> str:
    keys = [key for key in model.values if key.batch == batch and key.measure in ("seconds", "bytes")]
    lines = ["| procedure | layer | precision | seconds | peak memory, MB |", "|---|---|---|---|---|"]
    for layer, precision, procedure in dict.fromkeys((k.layer, k.precision, k.procedure) for k in keys):
        seconds, size = (
            model.values.get(_Key(layer, batch, precision, procedure, m), {}) for m in ("seconds", "bytes")
        )
        memory = _format_median(list(size.values()), "bytes")
        lines.append(f"| {procedure} | {layer} | {precision} | {_format_cell(seconds.values())} | {memory} |")
    return "\n".join(lines)


def _make_ratios(model: _Model, layers: Sequence[str], batches: Sequence[int]) -> str:
    lines = ["| ratio | " + " | ".join(f"{layer}, batch {b}" for layer in layers for b in batches) + " |"]
    lines.append("|---" * (1 + len(layers) * len(batches)) + "|")

    def add(
        text: str, numerator: str, denominator: str, *measures: str, precisions: Sequence[str] = ("float32",) * 2
    ) -> None:
        above, below = measures if measures else ("seconds", "seconds")
        cells = []
        for layer in layers:
            for batch in batches:
                top = model.get(layer, batch, numerator, above, precisions[0])
                bottom = model.get(layer, batch, denominator, below, precisions[1])
                cells.append(_format_cell(_compute_ratios(top, bottom)))
        if any(cells):
            lines.append(f"| {text} | " + " | ".join(cells) + " |")

    memory = ("bytes", "bytes")
    add("Holistic-CAM / floor", HOLISTIC, "floor")
    add(f"{PASSES} / floor", PASSES, "floor")
    add(f"Holistic-CAM / {PASSES}", HOLISTIC, PASSES)
    add(f"{CLASS} / {FORWARD}", CLASS, FORWARD)
    add(f"{CLASS} (7 scales) / {CLASS}", f"{CLASS} (7 scales)", CLASS)
    add(f"{CLASS} / {CLASS} (3 of 7 scales)", CLASS, f"{CLASS} (3 of 7 scales)")
    add(f"{CLASS} / Grad-CAM", CLASS, "Grad-CAM")
    add(f"CAMERAS procedure / {CLASS}", CAMERAS, CLASS)
    add(f"SESS / {CLASS}", "SESS", CLASS)
    add(f"Score-CAM / {CLASS}", "Score-CAM", CLASS)
    add(f"fusion and masks / {CLASS}", CLASS, CLASS, "fusion seconds", "seconds")
    add(f"{CLASS}, bfloat16 / float32", CLASS, CLASS, precisions=("bfloat16", "float32"))
    add(f"memory: {CLASS} / {CLASS} (3 of 7 scales)", CLASS, f"{CLASS} (3 of 7 scales)", "bytes", "bytes")
    add("CAMERAS procedure / Holistic-CAM", CAMERAS, HOLISTIC)
    add("SESS / Holistic-CAM", "SESS", HOLISTIC)
    add("fusion and mask / Holistic-CAM", HOLISTIC, HOLISTIC, "fusion seconds", "seconds")
    add(f"{TARGETS} targets / one", f"{HOLISTIC}, {TARGETS} targets", HOLISTIC)
    add("first 4 scales / all 7 (24.0 % of the pixels)", f"{HOLISTIC}, 4 scales", HOLISTIC)
    add("bfloat16 / float32", HOLISTIC, HOLISTIC, precisions=("bfloat16", "float32"))
    add("memory: Holistic-CAM / floor", HOLISTIC, "floor", *memory)
    add(f"memory: {PASSES} / floor", PASSES, "floor", *memory)
    add("memory: CAMERAS procedure / Holistic-CAM", CAMERAS, HOLISTIC, *memory)
    add("the batch / its first image", HOLISTIC, f"{HOLISTIC}, first image")
    cells = []
    for layer in layers:
        for batch in batches:
            cells.append(_format_cell(model.get(layer, batch, HOLISTIC, "spearman", "bfloat16").values(), digits=4))
    if any(cells):
        lines.append("| Spearman's correlation, bfloat16 with float32 | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format_median(values: Sequence[float], measure: str) -> str:
    if not values:
        return ""
    return f"{np.median(values) / 1e6:.0f}" if measure == "bytes" else f"{np.median(values):.3g}"


def _compute_ratios(above: _Values, below: _Values) -> list[float]:
    """Ratios of the same rounds; without a common round (memory is measured separately) the ratio of the medians."""
    shared = [above[number] / below[number] for number in above if number in below]
    if shared or not above or not below:
        return shared
    return [float(np.median(list(above.values())) / np.median(list(below.values())))]


def _format_cell(values: Iterable[float], digits: int = 3) -> str:
    found = list(values)
    if not found:
        return ""
    low, middle, high = (f"{x:.{digits}g}" for x in np.percentile(found, [25, 50, 75]))
    return middle if len(found) == 1 else f"{middle} [{low}, {high}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, metavar="latency.csv")
    print(make_latency_tables(parser.parse_args(argv).tables))


if __name__ == "__main__":
    run_main(main)
