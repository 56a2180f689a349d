"""The metrics of Table 1, for all maps of one image at once, so that perturbed copies fill the batches."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence, Set
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.harness.data import Loaded, load
from benchmarks.harness.grids import load_grid
from benchmarks.harness.methods import MapsByMethod
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task
from benchmarks.harness.table_file import Row
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import (
    OverAll,
    RelativeROAD,
    average_precision,
    best_iou,
    energy_pointing_game,
    lucidity,
    rasterize_region,
    tied_pixels,
)
from holistic_cam_plugin.models.classifier import Classifier

__all__ = ["COLUMNS", "METRICS", "Explain", "check_metrics", "make_evaluate", "measure"]

FIDELITY = ("ins", "del", "road")
LOCALISATION = ("ap", "iou", "lucidity", "class_ap", "epg")
METRICS = (*FIDELITY, *LOCALISATION)
# Shares in [0, 1] except road, which is the paper's relative form. road_halved is pytorch-grad-cam's form, epg_top100
# counts only the 100 highest pixels, class_ap ranks the pixels of the objects alone (of the scenes of digits), tied is
# the share of pixels with a value that another pixel has too.
VALUES = ("ins", "del", "over_all", "road", "road_halved", *LOCALISATION, "epg_top100", "tied")
COLUMNS = ("image", "class_index", "probability", "layer", "method", *VALUES)

TOP = 100

Explain = Callable[[Tensor, ClassifierOutputTarget], MapsByMethod]
Values = dict[str, NDArray[np.float64]]


def check_metrics(names: Sequence[str]) -> None:
    """Raise UsageError for an unknown metric."""
    for name in names:
        if name not in METRICS:
            raise UsageError(f"no metric {name!r}; known: {', '.join(METRICS)}")


def measure(task: Task, classifier: Classifier, explain: Explain, arguments: argparse.Namespace) -> list[Row]:
    """Evaluate one image: one row per layer and method.

    Fidelity is measured on the image, localisation on its grid if there is one, else on the image.

    Args:
        explain: computes the maps of an image for a target.
        arguments: `metrics`, `seed`, `step` and `batch_size` are used.

    Raises:
        UsageError: the image cannot be read.
    """
    target = ClassifierOutputTarget(task.sample.label)
    loaded = load(task.sample, classifier)
    with torch.inference_mode():
        probability = float(classifier.model(loaded.image).softmax(dim=1)[0, task.sample.label])
    metrics = set(arguments.metrics)
    maps: MapsByMethod = {}
    values: Values = {}
    if task.grid is None or metrics & set(FIDELITY):
        maps = explain(loaded.image, target)
        values = _measure_fidelity(loaded, maps, target, classifier, arguments)
        values["tied"] = tied_pixels(_stack(maps))
    if task.grid is not None and metrics & set(LOCALISATION):
        loaded = load_grid(task.grid, classifier)
        maps = explain(loaded.image, target)
        values.setdefault("tied", tied_pixels(_stack(maps)))
    values |= _measure_localisation(loaded, _stack(maps), metrics)
    known = {"image": task.sample.name, "class_index": task.sample.label, "probability": probability}
    return [
        known | {"layer": layer, "method": method} | {name: float(value[place]) for name, value in values.items()}
        for place, (layer, method) in enumerate(maps)
    ]


def make_evaluate(arguments: argparse.Namespace, explain: Callable[..., MapsByMethod], *settings: object) -> Evaluate:
    """Load the model, and build the function that evaluates one image.

    Args:
        explain: computes maps, called with `model, layers, *settings, image, target, options=...`.
    """
    classifier = load_model(arguments)
    options = classifier.at(arguments.layers).options
    explained = partial(explain, classifier.model, arguments.layers, *settings, options=options)
    return lambda task: measure(task, classifier, explained, arguments)


def _measure_fidelity(
    loaded: Loaded,
    maps: MapsByMethod,
    target: ClassifierOutputTarget,
    classifier: Classifier,
    arguments: argparse.Namespace,
) -> Values:
    metrics, seed, batch_size = arguments.metrics, arguments.seed, arguments.batch_size
    cams, targets = _stack(maps), [target] * len(maps)
    images = loaded.image.expand(len(maps), -1, -1, -1)
    values: Values = {}
    if "ins" in metrics or "del" in metrics:
        curves = OverAll(step=arguments.step, batch_size=batch_size).curves(images, cams, targets, classifier.model)
        values |= {"ins": curves.insertion.area(), "del": curves.deletion.area(), "over_all": curves.area()}
    if "road" in metrics:
        road = RelativeROAD(seed=seed, batch_size=batch_size).scores(images, cams, targets, classifier.model)
        values |= {"road": road.relative(), "road_halved": road.absolute()}
    return values


def _measure_localisation(loaded: Loaded, cams: NDArray[np.float32], metrics: Set[str]) -> Values:
    """Compare the maps with the object's mask or boxes; the pointing game prefers boxes, as in the paper."""
    boxes = np.array(loaded.boxes) if loaded.boxes else None
    values: Values = {}
    if (mask := boxes if loaded.mask is None else loaded.mask) is not None:
        regions = [mask] * len(cams)
        if not rasterize_region(mask, *cams.shape[1:]).all():  # otherwise any order is right
            values |= {"ap": average_precision(cams, regions)} if "ap" in metrics else {}
            values |= {"iou": best_iou(cams, regions)} if "iou" in metrics else {}
        values |= {"lucidity": lucidity(cams, regions)} if "lucidity" in metrics else {}
    if "class_ap" in metrics and loaded.mask is not None and loaded.others is not None:
        objects = loaded.mask | loaded.others
        values["class_ap"] = average_precision(cams[:, None, objects], [loaded.mask[None, objects]] * len(cams))
    if "epg" in metrics and (box := mask if boxes is None else boxes) is not None:
        regions = [box] * len(cams)
        values["epg"] = energy_pointing_game(cams, regions)
        values["epg_top100"] = energy_pointing_game(cams, regions, top_k=TOP)
    return values


def _stack(maps: MapsByMethod) -> NDArray[np.float32]:
    return np.stack(list(maps.values()))
