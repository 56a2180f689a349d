"""Fig. 9, the sanity check: a map that explains the model must change when the model's parameters are random.

Cascading randomisation starts at the logits and keeps previous modules random; independent randomisation changes one
module at a time. The table has the similarity of each map to the original model's; 1 means that the map ignores the
randomised parameters. A strip of maps per image, layer and kind is written as PNG. Modules below a target layer change
its activations, modules above it only its gradients.

eMPRT is the relative increase of the map's complexity when all parameters are random, the median of five seeds; at most
0 means that the random model's map is not more complex. Seeds are skipped if the random model's score does not depend
on the image, which happens with half of them in networks that end in a ReLU.
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

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_strip, save_trends
from benchmarks.harness.intervals import bootstrap
from benchmarks.harness.markdown import format_table
from benchmarks.harness.methods import NO_LAYER, MapsByMethod, explain_methods
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, choose_tasks, run, run_main
from benchmarks.harness.table_file import Row, read_rows
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.methods import pyramid_options
from holistic_cam_plugin.metrics import (
    cascading_randomization,
    efficient_mprt,
    independent_randomization,
    list_parameter_layers,
    similarity,
)
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EMPRT", "make_emprt_table", "make_similarity_table"]

COLUMNS = ("image", "class_index", "layer", "method", "kind", "randomized", "ssim", "spearman", "emprt")

KINDS: dict[str, Callable[..., Iterator[tuple[str, nn.Module]]]] = {
    "cascading": cascading_randomization,
    "independent": independent_randomization,
}
EMPRT = "eMPRT"  # kind of its rows
SEEDS = 5
TRIES = 20 * SEEDS  # of seeds, to find some whose score depends on the image


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that evaluates one image."""
    classifier = load_model(arguments)
    return lambda task: _check(task, classifier, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    parser = make_parser(__doc__, samples=5)
    parser.add_argument("--randomize", nargs="+", metavar="NAME", help="modules, from the output down (all)")
    arguments = parser.parse_args(argv)
    tasks = choose_tasks(arguments)
    path = run(make, arguments, tasks, COLUMNS, "sanity")
    rows = read_rows(path)
    for layer in dict.fromkeys(row["layer"] for row in rows if row["layer"] != NO_LAYER):
        for kind in KINDS:
            found = [row for row in rows if row["layer"] == layer and row["kind"] == kind]
            print(f"\n**{arguments.model}, {layer}, {kind}**: mean similarity to the original model's map\n")
            print(make_similarity_table(found))
            save_trends(arguments.output / f"sanity_{layer}_{kind}.png", found, ("ssim", "spearman"))
        print(f"\n**{arguments.model}, {layer}, {EMPRT}**: all parameters random, median of {SEEDS} seeds\n")
        print(make_emprt_table([row for row in rows if row["layer"] == layer]))


def make_similarity_table(rows: Sequence[dict[str, str]]) -> str:
    """Make a table of mean Spearman correlations, with SSIM in brackets, one column per randomised module.

    There is one row per layer, kind and method; labels show those that differ.
    """
    rows = [row for row in rows if row["kind"] in KINDS]
    steps = list(dict.fromkeys(row["randomized"] for row in rows))
    corner, groups = _group(rows, ("layer", "kind", "method"))
    lines = []
    for label, found in groups.items():
        cells = []
        for step in steps:
            own = [row for row in found if row["randomized"] == step]
            ranks, structure = ([float(row[name]) for row in own if row[name]] for name in ("spearman", "ssim"))
            cells.append(f"{np.mean(ranks):.2f} ({np.mean(structure):.2f})" if ranks else "constant")
        lines.append([label, *cells])
    return format_table([corner, *steps], lines)


def make_emprt_table(rows: Sequence[dict[str, str]]) -> str:
    """Make a table of mean eMPRT with intervals; rows and labels as in `make_similarity_table`."""
    corner, groups = _group([row for row in rows if row["kind"] == EMPRT], ("layer", "method"))
    lines = []
    for label, found in groups.items():
        values = [float(row["emprt"]) for row in found if row["emprt"]]
        cell = "{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap(values)) if values else "constant"
        lines.append([label, cell])
    return format_table([corner, f"{EMPRT} ↑"], lines)


def _group(rows: Sequence[dict[str, str]], fields: Sequence[str]) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """Group rows by the fields that differ, and name these fields."""
    differing = [field for field in fields if len({row[field] for row in rows}) > 1] or ["method"]
    groups = defaultdict(list)
    for row in rows:
        groups[", ".join(row[field] for field in differing)].append(row)
    return ", ".join(differing), groups


def _check(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """Evaluate one image: rows per kind, randomised module, layer and method, and of eMPRT per layer and method."""
    image, target = load(task.sample, classifier).image, ClassifierOutputTarget(task.sample.label)

    # Without the mask layer, which is a module of the model and not of its copies: it is found.
    options = pyramid_options(HolisticCAM, classifier.at(arguments.layers).options)

    def maps(model: nn.Module) -> MapsByMethod:
        return explain_methods(model, arguments.layers, arguments.methods, image, target, options)

    known = {"image": task.sample.name, "class_index": task.sample.label}
    names = arguments.randomize or list_parameter_layers(classifier.model)
    original = maps(classifier.model)
    rows: list[Row] = []
    for kind, randomization in KINDS.items():
        steps = {"original": original}
        for name, model in randomization(classifier.model, names, seed=arguments.seed):
            steps[name] = maps(model)
            for (layer, method), cam in steps[name].items():
                place = known | {"layer": layer, "method": method, "kind": kind, "randomized": name}
                rows.append(place | similarity(original[layer, method], cam)._asdict())
        for layer in arguments.layers:
            path = arguments.output / "strips" / f"{task.sample.name.replace('/', '_')}_{layer}_{kind}.png"
            save_strip(path, classifier.preprocessing.denormalize(image), steps, layer)
    models = islice(_find_models(classifier.model, image, target, arguments.seed), SEEDS)
    rises = _compute_emprt(original, [maps(model) for model in models])
    for (layer, method), rise in zip(original, rises, strict=True):
        place = known | {"layer": layer, "method": method, "kind": EMPRT, "randomized": "all"}
        rows.append(place | {"emprt": float(rise)})
    return rows


def _find_models(model: nn.Module, image: Tensor, target: Target, seed: int) -> Iterator[nn.Module]:
    """Yield copies with random parameters for which the target's score depends on the image."""
    for number in range(TRIES):
        ((_, randomized),) = independent_randomization(model, [""], seed=seed + number)  # "" is the whole model
        leaf = image.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(target(randomized(leaf)[0]), leaf)
        if gradient.any():
            yield randomized


def _compute_emprt(original: MapsByMethod, randomized: Sequence[MapsByMethod]) -> NDArray[np.float64]:
    """Compute eMPRT of each map, the median over the random models; NaN for constant maps or without models."""
    before, *after = (np.stack(list(maps.values())) for maps in (original, *randomized))
    rises = [efficient_mprt(before, maps) for maps in after] or [np.full(len(before), np.nan)]
    return np.asarray(np.median(rises, axis=0), dtype=np.float64)


if __name__ == "__main__":
    run_main(main)
