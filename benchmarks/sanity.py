"""Fig. 9, the sanity check: a map that explains the model must change when its parameters are random.

Cascading: from the logits down, every step keeps the ones before random. Independent: one module at a time. The table
holds the similarity of each map to the untouched model's; 1 means that the map ignores what was randomised. One strip
of maps an image, layer and kind is written as PNG. Modules below a target layer change its activations, those above
it only its gradients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_strip, save_trends
from benchmarks.harness.markdown import table_text
from benchmarks.harness.methods import NO_LAYER, MapsByMethod, maps_by_method
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, command, prepared, run
from holistic_cam_plugin.batch.journal import Row, read_rows
from holistic_cam_plugin.classifiers.images import shown
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.metrics import (
    cascading_randomization,
    independent_randomization,
    parameter_layers,
    similarity,
)

__all__ = ["similarity_table"]

COLUMNS = ("image", "class_index", "layer", "method", "kind", "randomized", "ssim", "spearman")

KINDS: dict[str, Callable[..., Iterator[tuple[str, nn.Module]]]] = {
    "cascading": cascading_randomization,
    "independent": independent_randomization,
}


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


def similarity_table(rows: Sequence[dict[str, str]]) -> str:
    """Mean over the images of Spearman's correlation, then SSIM in brackets: one column a randomised module.

    One row a layer, kind and method, of which the label holds those that are not the same everywhere.
    """
    steps = list(dict.fromkeys(row["randomized"] for row in rows))
    fields = [field for field in ("layer", "kind", "method") if len({row[field] for row in rows}) > 1] or ["method"]
    lines = []
    for key in dict.fromkeys(tuple(row[field] for field in fields) for row in rows):
        cells = []
        for step in steps:
            own = [r for r in rows if tuple(r[field] for field in fields) == key and r["randomized"] == step]
            ranks, structure = ([float(row[name]) for row in own if row[name]] for name in ("spearman", "ssim"))
            cells.append(f"{np.mean(ranks):.2f} ({np.mean(structure):.2f})" if ranks else "constant")
        lines.append([", ".join(key), *cells])
    return table_text([", ".join(fields), *steps], lines)


def _checked(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """One row a kind, randomised module, layer and method."""
    image, target = load(task.sample, classifier).image, ClassifierOutputTarget(task.sample.label)

    def maps(model: nn.Module) -> MapsByMethod:
        return maps_by_method(model, arguments.layers, arguments.methods, image, target)

    names = arguments.randomize or parameter_layers(classifier.model)
    untouched = maps(classifier.model)
    rows: list[Row] = []
    for kind, randomization in KINDS.items():
        steps = {"untouched": untouched}
        for name, model in randomization(classifier.model, names, seed=arguments.seed):
            steps[name] = maps(model)
            for (layer, method), cam in steps[name].items():
                likeness = similarity(untouched[layer, method], cam)
                known = {"image": task.sample.name, "class_index": task.sample.label, "layer": layer, "method": method}
                rows.append(known | {"kind": kind, "randomized": name} | likeness._asdict())
        for layer in arguments.layers:
            path = arguments.output / "strips" / f"{task.sample.name.replace('/', '_')}_{layer}_{kind}.png"
            save_strip(path, shown(image, classifier), steps, layer)
    return rows


if __name__ == "__main__":
    command(main)
