"""Fig. 9, the sanity check: a map that explains the model must change when its parameters are random.

Cascading: from the logits down, every step keeps the ones before random. Independent: one module at a time. The table
holds the similarity of each map to the untouched model's; 1 means that the map ignores what was randomised. One strip
of maps an image, layer and kind is written as PNG. Modules below a target layer change its activations, those above
it only its gradients.

eMPRT is the relative rise of the map's complexity when all the parameters are random, the median of five seeds; 0 or
less says that the random model's map is no more complex than the model's. Seeds whose random model has a dead score,
one that does not depend on the image, are passed over: half of them in nets that end in a ReLU.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_strip, save_trends
from benchmarks.harness.intervals import bootstrap
from benchmarks.harness.markdown import table_text
from benchmarks.harness.methods import NO_LAYER, MapsByMethod, maps_by_method
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, command, prepared, run
from holistic_cam_plugin.batch.journal import Row, read_rows
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.metrics import (
    cascading_randomization,
    efficient_mprt,
    independent_randomization,
    parameter_layers,
    similarity,
)
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EMPRT", "emprt_table", "similarity_table"]

COLUMNS = ("image", "class_index", "layer", "method", "kind", "randomized", "ssim", "spearman", "emprt")

KINDS: dict[str, Callable[..., Iterator[tuple[str, nn.Module]]]] = {
    "cascading": cascading_randomization,
    "independent": independent_randomization,
}
EMPRT = "eMPRT"  # the kind of the rows that hold it
SEEDS = 5
TRIES = 20 * SEEDS  # to find so many seeds with a living score


def make(arguments: argparse.Namespace) -> Evaluate:
    """The check of one image, with the model loaded."""
    classifier = load_model(arguments)
    return lambda task: _checked(task, classifier, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = experiment_parser(__doc__, samples=5)
    parser.add_argument("--randomize", nargs="+", metavar="NAME", help="modules, from the output down (all)")
    arguments = parser.parse_args(argv)
    tasks = prepared(arguments)
    path = run(make, arguments, tasks, COLUMNS, "sanity")
    rows = read_rows(path)
    for layer in dict.fromkeys(row["layer"] for row in rows if row["layer"] != NO_LAYER):
        for kind in KINDS:
            found = [row for row in rows if row["layer"] == layer and row["kind"] == kind]
            print(f"\n**{arguments.model}, {layer}, {kind}**: mean similarity to the untouched model's map\n")
            print(similarity_table(found))
            save_trends(arguments.output / f"sanity_{layer}_{kind}.png", found, ("ssim", "spearman"))
        print(f"\n**{arguments.model}, {layer}, {EMPRT}**: all parameters random, median of {SEEDS} seeds\n")
        print(emprt_table([row for row in rows if row["layer"] == layer]))


def similarity_table(rows: Sequence[dict[str, str]]) -> str:
    """Mean over the images of Spearman's correlation, then SSIM in brackets: one column a randomised module.

    One row a layer, kind and method, of which the label holds those that are not the same everywhere.
    """
    rows = [row for row in rows if row["kind"] in KINDS]
    steps = list(dict.fromkeys(row["randomized"] for row in rows))
    corner, groups = _grouped(rows, ("layer", "kind", "method"))
    lines = []
    for label, found in groups.items():
        cells = []
        for step in steps:
            own = [row for row in found if row["randomized"] == step]
            ranks, structure = ([float(row[name]) for row in own if row[name]] for name in ("spearman", "ssim"))
            cells.append(f"{np.mean(ranks):.2f} ({np.mean(structure):.2f})" if ranks else "constant")
        lines.append([label, *cells])
    return table_text([corner, *steps], lines)


def emprt_table(rows: Sequence[dict[str, str]]) -> str:
    """Mean of eMPRT over the images with its interval; rows and labels as in `similarity_table`."""
    corner, groups = _grouped([row for row in rows if row["kind"] == EMPRT], ("layer", "method"))
    lines = []
    for label, found in groups.items():
        values = [float(row["emprt"]) for row in found if row["emprt"]]
        cell = "{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap(values)) if values else "constant"
        lines.append([label, cell])
    return table_text([corner, f"{EMPRT} ↑"], lines)


def _grouped(rows: Sequence[dict[str, str]], fields: Sequence[str]) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """The rows by those of the fields that are not the same everywhere, and these fields' names."""
    telling = [field for field in fields if len({row[field] for row in rows}) > 1] or ["method"]
    groups = defaultdict(list)
    for row in rows:
        groups[", ".join(row[field] for field in telling)].append(row)
    return ", ".join(telling), groups


def _checked(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """One row a kind, randomised module, layer and method, and eMPRT's of each layer and method."""
    image, target = load(task.sample, classifier).image, ClassifierOutputTarget(task.sample.label)

    options = classifier.found.at(arguments.layers).options

    def maps(model: nn.Module) -> MapsByMethod:
        return maps_by_method(model, arguments.layers, arguments.methods, image, target, options)

    known = {"image": task.sample.name, "class_index": task.sample.label}
    names = arguments.randomize or parameter_layers(classifier.model)
    untouched = maps(classifier.model)
    rows: list[Row] = []
    for kind, randomization in KINDS.items():
        steps = {"untouched": untouched}
        for name, model in randomization(classifier.model, names, seed=arguments.seed):
            steps[name] = maps(model)
            for (layer, method), cam in steps[name].items():
                place = known | {"layer": layer, "method": method, "kind": kind, "randomized": name}
                rows.append(place | similarity(untouched[layer, method], cam)._asdict())
        for layer in arguments.layers:
            path = arguments.output / "strips" / f"{task.sample.name.replace('/', '_')}_{layer}_{kind}.png"
            save_strip(path, classifier.preprocessing.shown(image), steps, layer)
    models = islice(_living(classifier.model, image, target, arguments.seed), SEEDS)
    for (layer, method), rise in zip(untouched, _rises(untouched, [maps(model) for model in models]), strict=True):
        place = known | {"layer": layer, "method": method, "kind": EMPRT, "randomized": "all"}
        rows.append(place | {"emprt": float(rise)})
    return rows


def _living(model: nn.Module, image: Tensor, target: Target, seed: int) -> Iterator[nn.Module]:
    """Copies with all parameters random in which the target's score depends on the image."""
    for number in range(TRIES):
        ((_, randomized),) = independent_randomization(model, [""], seed=seed + number)  # the root: every module
        leaf = image.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target(randomized(leaf)[0]), leaf)
        if gradient.any():
            yield randomized


def _rises(untouched: MapsByMethod, randomized: Sequence[MapsByMethod]) -> NDArray[np.float64]:
    """eMPRT of each map, the median over the random models; NaN where the map is constant, or without such models."""
    before, *after = (np.stack(list(maps.values())) for maps in (untouched, *randomized))
    rises = [efficient_mprt(before, maps) for maps in after] or [np.full(len(before), np.nan)]
    return np.asarray(np.median(rises, axis=0), dtype=np.float64)


if __name__ == "__main__":
    command(main)
