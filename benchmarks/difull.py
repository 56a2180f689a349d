"""DiFull: does a map keep to the quarter of a grid that alone can influence the score?

Each image is the target once in a 2x2 grid with three random images of other classes. The quarters go through the
model separately and the score is read from the target's quarter, so that whatever a map shows in the others is the
method's own. EPG, the share of the map's energy in that quarter, is the localisation score of Rao et al., "Towards
Better Understanding Attribution Methods", CVPR 2022; AP, the average precision of its pixels, looks at their order
alone. A uniform map gets 25 in both.

  python -m benchmarks.difull --model squeezenet1_0 --weights squeezenet1_0.pth --images photos \\
      --layers features.7 features.12 --methods Grad-CAM Layer-CAM Holistic-CAM Uniform
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.grids import load_grid
from benchmarks.harness.methods import WRAP, maps_by_method
from benchmarks.harness.models import load_model
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, Task, command, prepared, run
from holistic_cam_plugin.batch.journal import Row
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import DiFull, average_precision, energy_pointing_game

COLUMNS = ("image", "class_index", "layer", "method", "epg", "ap")
INSIDE = "model."  # before the layers' names: DiFull holds the model under this one

# They cut patches out of the grid, and DiFull would take every patch for a grid of its own.
REFUSED = ("SESS",)


def make(arguments: argparse.Namespace) -> Evaluate:
    """The evaluation of one grid, with the model loaded."""
    classifier = load_model(arguments)
    return lambda task: _measured(task, classifier, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = experiment_parser(__doc__)
    parser.set_defaults(grid=True)
    arguments = parser.parse_args(argv)
    for name in arguments.methods:
        if name.removesuffix(WRAP) in REFUSED:
            raise UsageError(f"{name} can't be measured by DiFull, since it cuts the grid into patches: leave it out")
    path = run(make, arguments, prepared(arguments), COLUMNS, "difull")
    print_report([path], arguments.model, reference="Holistic-CAM")


def _measured(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """One row a layer and method."""
    assert task.grid is not None
    grid, label = load_grid(task.grid, classifier).image, task.sample.label
    disconnected = DiFull(classifier.model, task.grid.quarter)
    layers = [INSIDE + name for name in arguments.layers]
    target, options = ClassifierOutputTarget(label), {"reshape_transform": disconnected.reshape_transform}
    maps = maps_by_method(disconnected, layers, arguments.methods, grid, target, options)
    cams, regions = np.stack(list(maps.values())), [disconnected.region(*grid.shape[-2:])] * len(maps)
    values = zip(maps, energy_pointing_game(cams, regions), average_precision(cams, regions), strict=True)
    return [
        {"image": task.sample.name, "class_index": label, "layer": layer.removeprefix(INSIDE), "method": method}
        | {"epg": float(energy), "ap": float(precision)}
        for (layer, method), energy, precision in values
    ]


if __name__ == "__main__":
    command(main)
