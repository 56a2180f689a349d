"""Tables of means with 95 % bootstrap intervals, of the CSVs that the experiments write."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.methods import NO_LAYER
from benchmarks.harness.table_file import read_rows

__all__ = ["HEADINGS", "Interval", "bootstrap", "means", "print_report"]

RESAMPLES = 10_000
LEVELS = (2.5, 97.5)

HEADINGS = {
    "ins": "Ins ↑",
    "del": "Del ↓",
    "over_all": "Over-all ↑",
    "road": "ROAD ↑",
    "road_halved": "ROAD/2 ↑",
    "epg": "EPG ↑",
    "epg_top100": "EPG top 100 ↑",
    "tied": "tied",
}

# By metric, one value an image, by the image's name.
Found = dict[str, dict[str, float]]
Methods = Mapping[str, Found]  # by method
Values = dict[tuple[str, str], Found]  # by layer and method


class Interval(NamedTuple):
    """A mean, and where it would fall in 95 % of the samples like this one."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | NDArray[np.float64], seed: int = 0) -> Interval:
    """The mean and its 95 % percentile interval over 10,000 resamples of the images."""
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    # A thousand resamples at a time: 10,000 of 5,000 images would take 400 MB.
    means = [rng.choice(sample, (RESAMPLES // 10, len(sample))).mean(axis=1) for _ in range(10)]
    low, high = np.percentile(np.concatenate(means), LEVELS)
    return Interval(float(sample.mean()), float(low), float(high))


def print_report(paths: Sequence[Path], model: str, reference: str, common: bool = False) -> None:
    """Print the means, the paper's figures beside them, and the differences to `reference`, as Markdown.

    Args:
        paths: tables of one model.
        model: its name.
        reference: a method.
        common: take only the images for which the reference has a value too.
    """
    values = _read(paths)
    if common:
        values = _restricted(values, reference)
    paper = _paper(model)
    for layer in dict.fromkeys(layer for layer, _ in values):
        methods = {method: found for (where, method), found in values.items() if where == layer}
        print(f"\n**{model}, {layer}** ({_count(methods)})\n")
        print(_means(methods, paper.get(layer, {})))
        if reference in methods:
            compared = methods | {method: found for (where, method), found in values.items() if where == NO_LAYER}
            print(f"\n{reference} minus the other, on the same images:\n")
            print(_differences(compared, reference))


def means(path: Path) -> dict[tuple[str, str, str], float]:
    """The mean of every layer, method and metric of one table."""
    values = _read([path])
    return {
        (*key, metric): float(np.mean(list(found[metric].values())))
        for key, found in values.items()
        for metric in found
    }


def _read(paths: Sequence[Path]) -> Values:
    values: Values = {}
    for path in paths:
        for row in read_rows(path):
            found = values.setdefault((row["layer"], row["method"]), defaultdict(dict))
            for metric in HEADINGS:
                if row[metric]:
                    found[metric].setdefault(row["image"], float(row[metric]))  # the first table that has it
    return values


def _restricted(values: Values, reference: str) -> Values:
    """Every method's values of the images of which the reference has the same metric in some layer."""
    known: dict[str, set[str]] = defaultdict(set)
    for (_, method), found in values.items():
        if method == reference:
            for metric in found:
                known[metric] |= found[metric].keys()
    kept: Values = {}
    for key, found in values.items():
        kept[key] = defaultdict(dict)
        for metric in found:
            if own := {image: value for image, value in found[metric].items() if image in known[metric]}:
                kept[key][metric] = own
    return kept


def _paper(model: str) -> dict[str, dict[str, dict[str, str]]]:
    """The paper's figures of this model by layer and method, in percent; empty for other models."""
    figures: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with (Path(__file__).parent / "paper.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] == model:
                figures[row["layer"]][row["method"]] = row
    return figures


def _count(methods: Methods) -> str:
    counts = {metric: {len(found[metric]) for found in methods.values() if metric in found} for metric in HEADINGS}
    texts = [f"{metric} {'-'.join(map(str, sorted(sizes)))}" for metric, sizes in counts.items() if sizes]
    return "images: " + ", ".join(texts)


def _means(methods: Methods, paper: Mapping[str, Mapping[str, str]]) -> str:
    metrics = [metric for metric in HEADINGS if any(metric in found for found in methods.values())]
    lines = ["| method | " + " | ".join(HEADINGS[m] for m in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method, found in methods.items():
        cells = []
        for metric in metrics:
            cell = _cell(bootstrap(list(found[metric].values()))) if metric in found else ""
            published = paper.get(method, {}).get(metric, "")
            cells.append(f"{cell} (paper {published})" if published else cell)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _differences(methods: Methods, reference: str) -> str:
    own = methods[reference]
    metrics = [metric for metric in HEADINGS if metric in own and metric != "tied"]
    lines = ["| method | " + " | ".join(HEADINGS[m][:-2] for m in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method, found in methods.items():
        if method == reference:
            continue
        cells = []
        for metric in metrics:
            shared = [image for image in own[metric] if image in found.get(metric, {})]
            gaps = [own[metric][image] - found[metric][image] for image in shared]
            cells.append(_cell(bootstrap(gaps), sign="+") if gaps else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: Interval, sign: str = "") -> str:
    mean, low, high = (100 * value for value in interval)
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
