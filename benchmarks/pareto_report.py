"""A table and a plot of quality against time, from the tables of `pareto`.

  python -m benchmarks.pareto_report pareto.csv [pareto.csv ...] --plot pareto.png --knee "positive: 224 366 509"

Values are means over the network's layers; images of all networks form one sample. Times are ratios of the same image,
medians with quartiles.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.intervals import bootstrap
from benchmarks.harness.markdown import format_table
from benchmarks.harness.report import HEADINGS
from benchmarks.harness.runner import run_main
from benchmarks.harness.table_file import read_rows
from holistic_cam_plugin.errors import UsageError

__all__ = ["Gains", "make_pareto_table", "plot", "read_gains"]

METRICS = ("over_all", "ap", "iou")

_Numbers = Mapping[tuple[str, str], dict[str, dict[str, float]]]  # by network and image, layer, column


class Gains(NamedTuple):
    """Times and values of one setting, compared with a unit and a reference on the same images.

    Attributes:
        times: multiples of the unit's seconds, for each network and image.
        values: means over the layers, by metric, likewise.
        losses: the reference's values minus `values`, by metric.
        worst: largest mean loss of a layer, by metric.
        correlations: rank correlations of the maps' pixels with the reference's, if measured.
    """

    times: list[float]
    values: dict[str, list[float]]
    losses: dict[str, list[float]]
    worst: dict[str, float]
    correlations: list[float]


def read_gains(paths: Sequence[Path], unit: str, reference: str) -> dict[str, Gains]:
    """Read the gains of every setting, by name.

    Args:
        paths: tables of several networks; of several values the first table's counts.
        unit: name of the setting whose time is 1.
        reference: name of the setting whose quality is compared with.

    Raises:
        UsageError: the unit or the reference is missing for an image.
    """
    known: dict[str, dict[tuple[str, str], dict[str, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        for row in read_rows(path):
            numbers = {key: float(row[key]) for key in (*METRICS, "seconds", "spearman") if row.get(key)}
            known[row["method"]][path.parent.name, row["image"]].setdefault(row["layer"], numbers)
    return {name: _compare(images, known.get(unit, {}), known.get(reference, {})) for name, images in known.items()}


def make_pareto_table(paths: Sequence[Path], unit: str, reference: str) -> str:
    """Make a table with one row per setting: its time, mean quality, and loss against the reference, in percent."""
    header = [
        "pyramid", f"time / {unit}", *(HEADINGS[metric] for metric in METRICS),
        *(f"{HEADINGS[metric][:-2]} lost" for metric in METRICS), "AP lost, worst layer", "rank correlation",
    ]  # fmt: skip
    rows = []
    for name, found in sorted(read_gains(paths, unit, reference).items(), key=lambda pair: np.median(pair[1].times)):
        low, middle, high = np.quantile(found.times, (0.25, 0.5, 0.75))
        losses = [bootstrap(found.losses[metric]) for metric in METRICS]
        rows.append(
            [
                name,
                f"{middle:.3g} [{low:.3g}, {high:.3g}]",
                *(f"{100 * np.mean(found.values[metric]):.1f}" for metric in METRICS),
                *(f"{100 * mean:+.1f} [{100 * least:+.1f}, {100 * most:+.1f}]" for mean, least, most in losses),
                f"{100 * found.worst['ap']:+.1f}",
                f"{np.mean(found.correlations):.3f}" if found.correlations else "",
            ]
        )
    return format_table(header, rows)


def plot(found: Mapping[str, Gains], knee: str | None = None) -> Figure:
    """Plot the mean of each metric in percent over the median time, join the best settings and mark the knee."""
    figure = Figure(figsize=(4.4 * len(METRICS), 4.2), dpi=100, layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        points = {
            name: (float(np.median(g.times)), 100 * float(np.mean(g.values[metric]))) for name, g in found.items()
        }
        best = sorted((name for name in points if _is_best(points[name], points.values())), key=points.__getitem__)
        axes.plot(*zip(*(points[name] for name in best), strict=True), color="0.7", zorder=0)
        for number, name in enumerate(sorted(points, key=points.__getitem__)):
            (x, y), marked = points[name], name == knee
            axes.plot(x, y, "o", color="tab:red" if marked else "tab:blue", markersize=9 if marked else 5)
            axes.annotate(
                name.split(": ")[-1], (x, y), (5, -9 if number % 2 else 4), textcoords="offset points", fontsize=7
            )
        axes.margins(x=0.2)
        axes.set(xscale="log", xlabel="time, multiples of one scale", title=f"{HEADINGS[metric]}, %")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("tables", nargs="+", type=Path, metavar="pareto.csv")
    add("--unit", default="positive: 1 scale", metavar="NAME", help="the setting whose time is 1 (%(default)s)")
    add("--reference", default="positive: formula, 7", metavar="NAME", help="the setting to compare with (%(default)s)")
    add("--plot", type=Path, metavar="FILE.png", help="draw the plot")
    add("--knee", metavar="NAME", help="the setting to mark")
    arguments = parser.parse_args(argv)
    print(make_pareto_table(arguments.tables, arguments.unit, arguments.reference))
    if arguments.plot is not None:
        found = read_gains(arguments.tables, arguments.unit, arguments.reference)
        plot(found, arguments.knee).savefig(arguments.plot)


def _compare(images: _Numbers, units: _Numbers, references: _Numbers) -> Gains:
    found = Gains([], {metric: [] for metric in METRICS}, {metric: [] for metric in METRICS}, {}, [])
    by_layer: dict[str, dict[tuple[str, str], list[float]]] = {metric: defaultdict(list) for metric in METRICS}
    for key, layers in images.items():
        network, image = key
        if key not in units or key not in references:
            raise UsageError(f"the table of {network} has no unit or no reference for {image}")
        first = next(iter(layers))
        found.times.append(layers[first]["seconds"] / units[key][first]["seconds"])
        found.correlations.extend(numbers["spearman"] for numbers in layers.values() if "spearman" in numbers)
        for metric in METRICS:
            losses = {layer: references[key][layer][metric] - numbers[metric] for layer, numbers in layers.items()}
            found.values[metric].append(float(np.mean([numbers[metric] for numbers in layers.values()])))
            found.losses[metric].append(float(np.mean(list(losses.values()))))
            for layer, loss in losses.items():
                by_layer[metric][network, layer].append(loss)
    worst = {metric: max(float(np.mean(losses)) for losses in layers.values()) for metric, layers in by_layer.items()}
    return found._replace(worst=worst)


def _is_best(point: tuple[float, float], points: Iterable[tuple[float, float]]) -> bool:
    """Whether no other point is both faster and better."""
    return not any(x < point[0] and y >= point[1] for x, y in points)


if __name__ == "__main__":
    run_main(main)
