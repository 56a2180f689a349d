"""What `holistic-cam` is asked of every image by each model, the maps of one, and the names of its files."""

from __future__ import annotations

import io
import re
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from holistic_cam_plugin.cli.outputs import write_file
from holistic_cam_plugin.display.figure import MAX_ROWS
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Explanation, Prediction, Request, explain, predict
from holistic_cam_plugin.methods import choose_methods
from holistic_cam_plugin.models.classes import find_classes
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.images import preprocess_image
from holistic_cam_plugin.names import FAST

__all__ = [
    "Task",
    "compute_maps",
    "create_task",
    "create_tasks",
    "deduplicate",
    "describe_predicted",
    "name_figure",
    "show_progress",
    "write_arrays",
]

Item = TypeVar("Item")

# Shown on a terminal only.
show_progress = partial(tqdm, disable=None, leave=False)


class Task(NamedTuple):
    """What is asked of every image by one model.

    Attributes:
        label: the model in the figure and in the names of arrays; empty if it is the only one.
        targets: class indices; none: the predicted class.
    """

    request: Request
    targets: list[int]
    arguments: Namespace
    label: str = ""

    def name_arrays(self, stem: str) -> list[str]:
        """The names of an image's arrays, in the order of methods, layers and targets."""
        if not self.arguments.save_array:
            return []
        suffixes = [f"_{target}" for target in self.targets] if len(self.targets) > 1 else [""]
        keys = [method.key for method in self.request.methods]
        start = "_".join([stem, re.sub(r"[^\w.-]+", "-", self.label)] if self.label else [stem])
        arrays = product(keys, self.request.layers, suffixes)
        return [f"{start}_{key}_{layer}{suffix}.npy" for key, layer, suffix in arrays]


def create_task(classifier: Classifier, arguments: Namespace, label: str = "") -> Task:
    """Find the targets and the layers.

    Raises:
        UsageError: one does not exist, or there are too many of them for a figure.
    """
    targets = deduplicate(find_classes(arguments.target or [], classifier.classes))
    layers = deduplicate(classifier.default_layers if arguments.layers is None else arguments.layers)
    found = classifier.at(layers)
    methods = choose_methods(arguments.methods, arguments.sizes or FAST, arguments.amp)
    request = Request(classifier, found, methods, arguments.aug_smooth, arguments.eigen_smooth)
    _check_rows(len(layers), max(1, len(targets)))
    return Task(request, targets, arguments, label)


def create_tasks(classifiers: Sequence[Classifier], weights: Sequence[Path | None], arguments: Namespace) -> list[Task]:
    """Create the task of each model; of several, each takes the layers that it has.

    Raises:
        UsageError: as `create_task`; or a layer belongs to no model, or a model has none of the layers.
    """
    if len(classifiers) == 1:
        return [create_task(classifiers[0], arguments)]
    files = [f" {path.name}" if path else "" for path in weights]
    names = [f"{classifier.name}{file}" for classifier, file in zip(classifiers, files, strict=True)]
    labels = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, 1)]
    own = [{layer.name for layer in classifier.explainable.maps} for classifier in classifiers]
    tasks = []
    for classifier, label, known in zip(classifiers, labels, own, strict=True):
        layers = None
        if arguments.layers is not None:  # one that no model has is refused by the first
            layers = [name for name in arguments.layers if name in known or not any(name in each for each in own)]
            if not layers:
                raise UsageError(
                    f"{label} has none of the layers {', '.join(arguments.layers)}: name one of its own, too"
                )
        tasks.append(create_task(classifier, Namespace(**(vars(arguments) | {"layers": layers})), label))
    _check_rows(sum(len(task.request.layers) for task in tasks), max(1, *(len(task.targets) for task in tasks)))
    return tasks


def _check_rows(layers: int, classes: int) -> None:
    if (rows := layers * classes) > MAX_ROWS:
        raise UsageError(
            f"{layers} layers and {classes} classes are {rows} rows, but a figure has at most {MAX_ROWS}: leave some "
            "out, or let holistic-cam batch compute the maps"
        )


def deduplicate(items: Iterable[Item]) -> list[Item]:
    """The items without repetitions, in their order."""
    return list(dict.fromkeys(items))


def compute_maps(task: Task, image: Image.Image) -> tuple[Prediction, Explanation]:
    """Compute the maps of one image by all methods.

    Raises:
        UsageError: as `predict` and `explain`.
    """
    classifier = task.request.classifier
    prediction = predict(classifier, preprocess_image(image, classifier))
    steps = explain(
        task.request, prediction, [task.targets], lambda method, loop: show_progress(loop, desc=method.name)
    )
    *_, (explanation,) = steps
    return prediction, explanation


def write_arrays(task: Task, explanation: Explanation, stem: str) -> None:
    """Write every map, if `--save-array` is given.

    Raises:
        OutputError: a file cannot be written.
    """
    if arrays := task.name_arrays(stem):
        maps = (one for of_method in explanation.maps for of_layer in of_method for one in of_layer)
        for array, saliency_map in zip(arrays, maps, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, saliency_map)
            write_file(task.arguments.output, array, buffer.getvalue())


def describe_predicted(classifier: Classifier, explanation: Explanation) -> str:
    """The predicted class and its probability."""
    predicted = explanation.predicted
    return f"{classifier.classes[predicted]} ({explanation.probabilities[predicted]:.1%})"


def name_figure(stem: str, arguments: Namespace) -> str:
    """The name of a figure's file."""
    return f"{stem}_holistic_cam.{arguments.format}"
