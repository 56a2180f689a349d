"""DiFull: does a map stay within the only quarter of a grid that can influence the score?

Each image is the target once, in a 2x2 grid with three random images of other classes. The quarters pass through the
model separately and the score depends on the target's quarter alone, so anything that a map shows in the others is an
artefact of the method. EPG, the share of the map's energy in that quarter, is the localisation score of Rao et al.,
"Towards Better Understanding Attribution Methods", CVPR 2022. AP, the average precision of its pixels, depends only on
their order. A uniform map gets 25 in both.

  python -m benchmarks.difull --model squeezenet1_0 --weights squeezenet1_0.pth --images photos \\
      --layers features.7 features.12 --methods Grad-CAM Layer-CAM Holistic-CAM Uniform
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.grids import load_grid
from benchmarks.harness.methods import explain_methods, remove_mask
from benchmarks.harness.models import load_model
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, Task, choose_tasks, run, run_main
from benchmarks.harness.table_file import Row
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import DiFull, average_precision, energy_pointing_game
from holistic_cam_plugin.models.classifier import Classifier

COLUMNS = ("image", "class_index", "layer", "method", "epg", "ap")
INSIDE = "model."  # prefix of layer names inside DiFull

# These methods cut patches out of the grid, which DiFull would treat as grids.
UNSUPPORTED = ("SESS",)


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one grid."""
    classifier = load_model(arguments)
    return lambda task: _measure(task, classifier, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = make_parser(__doc__)
    parser.set_defaults(grid=True)
    arguments = parser.parse_args(argv)
    for name in arguments.methods:
        if remove_mask(name) in UNSUPPORTED:
            raise UsageError(f"DiFull cannot measure {name}, which cuts the grid into patches: leave it out")
    path = run(make, arguments, choose_tasks(arguments), COLUMNS, "difull")
    print_report([path], arguments.model, reference="Holistic-CAM")


def _measure(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """Evaluate one grid: one row per layer and method."""
    assert task.grid is not None
    grid, label = load_grid(task.grid, classifier).image, task.sample.label
    disconnected = DiFull(classifier.model, task.grid.quarter)
    layers = [INSIDE + name for name in arguments.layers]
    target = ClassifierOutputTarget(label)
    options = classifier.at(arguments.layers).options | {"reshape_transform": disconnected.reshape_transform}
    maps = explain_methods(disconnected, layers, arguments.methods, grid, target, options)
    cams, regions = np.stack(list(maps.values())), [disconnected.region(*grid.shape[-2:])] * len(maps)
    values = zip(maps, energy_pointing_game(cams, regions), average_precision(cams, regions), strict=True)
    return [
        {"image": task.sample.name, "class_index": label, "layer": layer.removeprefix(INSIDE), "method": method}
        | {"epg": float(energy), "ap": float(precision)}
        for (layer, method), energy, precision in values
    ]


if __name__ == "__main__":
    run_main(main)
