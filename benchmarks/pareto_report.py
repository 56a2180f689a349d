"""What each scale buys, of the tables of `pareto`: a table, and a plot of quality against time.

  python -m benchmarks.pareto_report pareto.csv [pareto.csv ...] --plot pareto.png --knee "positive: 224 366 509"

Values of an image are means over its network's layers; images of all the networks are one sample. Times are ratios of
the same image, medians with quartiles.
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
from benchmarks.harness.markdown import table_text
from benchmarks.harness.report import HEADINGS
from benchmarks.harness.runner import command
from holistic_cam_plugin.batch.journal import read_rows
from holistic_cam_plugin.errors import UsageError

__all__ = ["Gains", "gains", "pareto_table", "plot"]

METRICS = ("over_all", "ap", "iou")

_Numbers = Mapping[tuple[str, str], dict[str, dict[str, float]]]  # by network and image, layer, column


class Gains(NamedTuple):
    """What one setting gives, beside the unit and the reference of its weighting, on the same images.

    Attributes:
        times: multiples of the unit's seconds, one a network and image.
        values: by metric, means over the layers, likewise.
        losses: by metric, the reference's values minus those.
        worst: by metric, the largest mean loss of a layer.
        correlations: rank correlation of the maps' pixels with the reference's, where there is one.
    """

    times: list[float]
    values: dict[str, list[float]]
    losses: dict[str, list[float]]
    worst: dict[str, float]
    correlations: list[float]


def gains(paths: Sequence[Path], unit: str, reference: str) -> dict[str, Gains]:
    """The gains of every setting, by its name.

    Args:
        paths: tables of several networks; of each setting and image the first that has it counts.
        unit: the name of the setting whose time is 1.
        reference: that of the setting whose quality is compared with.

    Raises:
        UsageError: a table's image lacks one of the two.
    """
    known: dict[str, dict[tuple[str, str], dict[str, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        for row in read_rows(path):
            numbers = {key: float(row[key]) for key in (*METRICS, "seconds", "spearman") if row.get(key)}
            known[row["method"]][path.parent.name, row["image"]].setdefault(row["layer"], numbers)
    return {name: _gains(images, known.get(unit, {}), known.get(reference, {})) for name, images in known.items()}


def pareto_table(paths: Sequence[Path], unit: str, reference: str) -> str:
    """One row a setting: its time, its mean quality, and what it loses against the reference, in percent."""
    header = [
        "pyramid", f"time / {unit}", *(HEADINGS[metric] for metric in METRICS),
        *(f"{HEADINGS[metric][:-2]} lost" for metric in METRICS), "AP lost, worst layer", "rank correlation",
    ]  # fmt: skip
    rows = []
    for name, found in sorted(gains(paths, unit, reference).items(), key=lambda pair: np.median(pair[1].times)):
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
    return table_text(header, rows)


def plot(found: Mapping[str, Gains], knee: str | None = None) -> Figure:
    """One panel a metric: its mean in percent over the median time, the best for their time joined, the knee marked."""
    figure = Figure(figsize=(4.4 * len(METRICS), 4.2), dpi=100, layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        points = {
            name: (float(np.median(g.times)), 100 * float(np.mean(g.values[metric]))) for name, g in found.items()
        }
        best = sorted((name for name in points if _unbeaten(points[name], points.values())), key=points.__getitem__)
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
    add("--reference", default="positive: formula, 7", metavar="NAME", help="what is compared with (%(default)s)")
    add("--plot", type=Path, metavar="FILE.png", help="to draw")
    add("--knee", metavar="NAME", help="the setting to mark")
    arguments = parser.parse_args(argv)
    print(pareto_table(arguments.tables, arguments.unit, arguments.reference))
    if arguments.plot is not None:
        found = gains(arguments.tables, arguments.unit, arguments.reference)
        plot(found, arguments.knee).savefig(arguments.plot)


def _gains(images: _Numbers, units: _Numbers, references: _Numbers) -> Gains:
    found = Gains([], {metric: [] for metric in METRICS}, {metric: [] for metric in METRICS}, {}, [])
    by_layer: dict[str, dict[tuple[str, str], list[float]]] = {metric: defaultdict(list) for metric in METRICS}
    for key, layers in images.items():
        network, image = key
        if key not in units or key not in references:
            raise UsageError(f"the table of {network} lacks the unit or the reference for {image}")
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


def _unbeaten(point: tuple[float, float], points: Iterable[tuple[float, float]]) -> bool:
    """Whether no other point is both quicker and better."""
    return not any(x < point[0] and y >= point[1] for x, y in points)


if __name__ == "__main__":
    command(main)
