"""Tables of means with 95 % bootstrap intervals, from the CSV files that the experiments write."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.intervals import Interval, bootstrap
from benchmarks.harness.methods import NO_LAYER
from benchmarks.harness.table_file import read_rows

__all__ = [
    "HEADINGS",
    "Values",
    "format_difference",
    "format_mean",
    "print_report",
    "read_means",
    "read_values",
    "restrict",
]

HEADINGS = {
    "ins": "Ins ↑",
    "del": "Del ↓",
    "over_all": "Over-all ↑",
    "road": "ROAD ↑",
    "road_halved": "ROAD/2 ↑",
    "ap": "AP ↑",
    "iou": "IoU ↑",
    "lucidity": "Lucidity ↑",
    "class_ap": "AP against other objects ↑",
    "epg": "EPG ↑",
    "epg_top100": "EPG top 100 ↑",
    "tied": "tied",
}

# By metric and image name.
Found = dict[str, dict[str, float]]
Methods = Mapping[str, Found]  # by method
Values = dict[tuple[str, str], Found]  # by layer and method


def print_report(paths: Sequence[Path], model: str, reference: str, common: bool = False) -> None:
    """Print the means beside the paper's figures, and the differences to `reference`, in Markdown.

    Args:
        paths: tables of the same model.
        model: name of the model, for the headings and the paper's figures.
        reference: name of a method.
        common: use only images for which the reference has a value.
    """
    values = read_values(paths)
    if common:
        values = restrict(values, reference)
    paper = _read_paper(model)
    for layer in dict.fromkeys(layer for layer, _ in values):
        methods = {method: found for (where, method), found in values.items() if where == layer}
        print(f"\n**{model}, {layer}** ({_count_images(methods)})\n")
        print(_make_means(methods, paper.get(layer, {})))
        if reference in methods:
            compared = methods | {method: found for (where, method), found in values.items() if where == NO_LAYER}
            print(f"\n{reference} minus the other, on the same images:\n")
            print(_make_differences(compared, reference))


def read_means(path: Path) -> dict[tuple[str, str, str], float]:
    """Compute the mean of every layer, method and metric of one table."""
    values = read_values([path])
    return {
        (*key, metric): float(np.mean(list(found[metric].values())))
        for key, found in values.items()
        for metric in found
    }


def read_values(paths: Sequence[Path]) -> Values:
    """Read several tables of the same model; of several values the first table's counts."""
    values: Values = {}
    for path in paths:
        for row in read_rows(path):
            found = values.setdefault((row["layer"], row["method"]), defaultdict(dict))
            for metric in HEADINGS:
                if row.get(metric):
                    found[metric].setdefault(row["image"], float(row[metric]))
    return values


def restrict(values: Values, reference: str) -> Values:
    """Keep only values of images for which the reference has the same metric in some layer."""
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


def format_mean(found: Found, metric: str, intervals: bool = True) -> str:
    """Format a mean in percent with its interval; empty without values."""
    if metric not in found:
        return ""
    sample = list(found[metric].values())
    return _format_interval(bootstrap(sample)) if intervals else f"{100 * np.mean(sample):.1f}"


def format_difference(own: Found, other: Found, metric: str, intervals: bool = True) -> str:
    """Format the mean difference of two methods on the same images, with its sign."""
    shared = [image for image in own.get(metric, {}) if image in other.get(metric, {})]
    if not shared:
        return ""
    gaps = [own[metric][image] - other[metric][image] for image in shared]
    return _format_interval(bootstrap(gaps), sign="+") if intervals else f"{100 * np.mean(gaps):+.1f}"


def _read_paper(model: str) -> dict[str, dict[str, dict[str, str]]]:
    """Read the paper's figures of this model, in percent, by layer and method; empty for other models."""
    figures: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with (Path(__file__).parent / "paper.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] == model:
                figures[row["layer"]][row["method"]] = row
    return figures


def _count_images(methods: Methods) -> str:
    counts = {metric: {len(found[metric]) for found in methods.values() if metric in found} for metric in HEADINGS}
    texts = [f"{metric} {'-'.join(map(str, sorted(sizes)))}" for metric, sizes in counts.items() if sizes]
    return "images: " + ", ".join(texts)


def _make_means(methods: Methods, paper: Mapping[str, Mapping[str, str]]) -> str:
    metrics = [metric for metric in HEADINGS if any(metric in found for found in methods.values())]
    lines = ["| method | " + " | ".join(HEADINGS[m] for m in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method, found in methods.items():
        cells = []
        for metric in metrics:
            published = paper.get(method, {}).get(metric, "")
            own = format_mean(found, metric)
            cells.append(f"{own} (paper {published})" if published else own)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _make_differences(methods: Methods, reference: str) -> str:
    own = methods[reference]
    metrics = [metric for metric in HEADINGS if metric in own and metric != "tied"]
    lines = ["| method | " + " | ".join(HEADINGS[m][:-2] for m in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method, found in methods.items():
        if method != reference:
            cells = [format_difference(own, found, metric) for metric in metrics]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format_interval(interval: Interval, sign: str = "") -> str:
    mean, low, high = (100 * value for value in interval)
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
