"""Tables of means with 95 % bootstrap intervals, of the CSVs that the experiments write."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.intervals import Interval, bootstrap
from benchmarks.harness.methods import NO_LAYER
from benchmarks.harness.table_file import read_rows

__all__ = ["HEADINGS", "Values", "cell", "difference", "means", "print_report", "read_values", "restricted"]

HEADINGS = {
    "ins": "Ins ↑",
    "del": "Del ↓",
    "over_all": "Over-all ↑",
    "road": "ROAD ↑",
    "road_halved": "ROAD/2 ↑",
    "epg": "EPG ↑",
    "epg_top100": "EPG top 100 ↑",
    "ap": "AP ↑",
    "tied": "tied",
}

# By metric, one value an image, by the image's name.
Found = dict[str, dict[str, float]]
Methods = Mapping[str, Found]  # by method
Values = dict[tuple[str, str], Found]  # by layer and method


def print_report(paths: Sequence[Path], model: str, reference: str, common: bool = False) -> None:
    """Print the means, the paper's figures beside them, and the differences to `reference`, as Markdown.

    Args:
        paths: tables of the same model.
        model: its name, for the headings and the paper's figures.
        reference: a method.
        common: leave out images for which the reference has no value.
    """
    values = read_values(paths)
    if common:
        values = restricted(values, reference)
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
    values = read_values([path])
    return {
        (*key, metric): float(np.mean(list(found[metric].values())))
        for key, found in values.items()
        for metric in found
    }


def read_values(paths: Sequence[Path]) -> Values:
    """All the values of several tables of the same model; the first table that has one wins."""
    values: Values = {}
    for path in paths:
        for row in read_rows(path):
            found = values.setdefault((row["layer"], row["method"]), defaultdict(dict))
            for metric in HEADINGS:
                if row.get(metric):
                    found[metric].setdefault(row["image"], float(row[metric]))
    return values


def restricted(values: Values, reference: str) -> Values:
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


def cell(found: Found, metric: str, intervals: bool = True) -> str:
    """A mean in percent with its interval; empty where there are no values."""
    if metric not in found:
        return ""
    sample = list(found[metric].values())
    return _cell(bootstrap(sample)) if intervals else f"{100 * np.mean(sample):.1f}"


def difference(own: Found, other: Found, metric: str, intervals: bool = True) -> str:
    """The mean of the first minus the second on the same images, likewise, with its sign."""
    shared = [image for image in own.get(metric, {}) if image in other.get(metric, {})]
    if not shared:
        return ""
    gaps = [own[metric][image] - other[metric][image] for image in shared]
    return _cell(bootstrap(gaps), sign="+") if intervals else f"{100 * np.mean(gaps):+.1f}"


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
            published = paper.get(method, {}).get(metric, "")
            own = cell(found, metric)
            cells.append(f"{own} (paper {published})" if published else own)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _differences(methods: Methods, reference: str) -> str:
    own = methods[reference]
    metrics = [metric for metric in HEADINGS if metric in own and metric != "tied"]
    lines = ["| method | " + " | ".join(HEADINGS[m][:-2] for m in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method, found in methods.items():
        if method != reference:
            cells = [difference(own, found, metric) for metric in metrics]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: Interval, sign: str = "") -> str:
    mean, low, high = (100 * value for value in interval)
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
