"""Fig. 2: variance of a channel's gradient over the positions, in each stage of the model.

Methods with one weight per channel assume that it is small. As gradients shrink with the number of positions, variances
of different stages cannot be compared, so the table also has the relative variance of channel k,

    v_k = 1 - mean(G_k)^2 / mean(G_k^2)

which is 0 for a constant gradient and 1 for one whose mean over the positions is 0. For each image the table has the
10th, 50th and 90th percentile over the channels of both; channels without any gradient are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import load
from benchmarks.harness.intervals import bootstrap
from benchmarks.harness.markdown import format_table
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, choose_tasks, run, run_main
from benchmarks.harness.table_file import Row, read_rows
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.models.classifier import Classifier

__all__ = ["channel_variances", "make_variance_table"]

PERCENTILES = (10, 50, 90)
VALUES = [f"{kind}_p{percentile}" for kind in ("variance", "relative") for percentile in PERCENTILES]
COLUMNS = ("image", "class_index", "layer", "channels", *VALUES)


def channel_variances(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and relative variance of each channel that has any gradient.

    Args:
        gradient: G, `(C, h, w)`.
    """
    flat = gradient.flatten(1).double()
    flat = flat[flat.any(dim=1)]
    power, mean = flat.square().mean(dim=1), flat.mean(dim=1)
    return (power - mean.square()).clamp(min=0), (1 - mean.square() / power).clamp(min=0)


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    classifier = load_model(arguments)
    return lambda task: _measure(task, classifier, arguments.layers)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment, and draw `gradient_variance.png`."""
    arguments = make_parser(__doc__, samples=48).parse_args(argv)
    path = run(make, arguments, choose_tasks(arguments), COLUMNS, "gradient_variance")
    rows = read_rows(path)
    print(make_variance_table(rows))
    _plot(rows, arguments.layers).savefig(arguments.output / "gradient_variance.png")


def make_variance_table(rows: Sequence[dict[str, str]]) -> str:
    """Make a table of the median channel's variances, means over the images with intervals, one row per layer."""
    lines = []
    for layer in dict.fromkeys(row["layer"] for row in rows):
        raw, relative = (
            bootstrap([float(row[key]) for row in rows if row["layer"] == layer])
            for key in ("variance_p50", "relative_p50")
        )
        scientific = f"{raw.mean:.3g} [{raw.low:.3g}, {raw.high:.3g}]"
        lines.append([layer, scientific, f"{relative.mean:.3f} [{relative.low:.3f}, {relative.high:.3f}]"])
    return format_table(["layer", "variance, median channel", "relative variance, median channel"], lines)


def _measure(task: Task, classifier: Classifier, layers: Sequence[str]) -> list[Row]:
    found = classifier.at(layers)
    cam = HolisticCAM(found.model, found.target_layers, weighting="gradient", fsd=False, num_scales=1, **found.options)
    image, target = load(task.sample, classifier).image, ClassifierOutputTarget(task.sample.label)
    levels = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
    rows: list[Row] = []
    for layer, (record,) in zip(layers, cam.intermediates(image, [target]), strict=True):
        raw, relative = channel_variances(record.weights[0].cpu())
        values = [float(value) for kind in (raw, relative) for value in kind.quantile(levels)] if len(raw) else []
        known = {"image": task.sample.name, "class_index": task.sample.label, "layer": layer, "channels": len(raw)}
        rows.append(known | dict(zip(VALUES, values, strict=False)))
    return rows


def _plot(rows: Sequence[dict[str, str]], layers: Sequence[str]) -> Figure:
    """Plot the median and the 10th to 90th percentile of the channels in each layer, means over the images."""
    figure = Figure(figsize=(9, 3.5), dpi=130, layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("variance", "relative"), strict=True):
        low, middle, high = (
            np.array([np.mean([float(r[f"{kind}_p{p}"]) for r in rows if r["layer"] == layer]) for layer in layers])
            for p in PERCENTILES
        )
        axes.errorbar(layers, middle, yerr=np.stack([middle - low, high - middle]), fmt="o", capsize=4)
        axes.set(ylabel=f"{kind} of a channel's gradient" if kind == "variance" else "relative variance")
    figure.axes[0].set_yscale("log")
    return figure


if __name__ == "__main__":
    run_main(main)
