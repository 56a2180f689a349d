"""What `holistic-cam` is asked of every image, the maps of one, and the names of its files."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Iterable
from functools import partial
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from holistic_cam_plugin.cli.arguments import select_methods
from holistic_cam_plugin.cli.outputs import write_file
from holistic_cam_plugin.display.figure import MAX_ROWS
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Explanation, Prediction, Request, explain, predict
from holistic_cam_plugin.models.classes import find_classes
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.images import preprocess_image

__all__ = [
    "Task",
    "compute_maps",
    "create_task",
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
    """What is asked of every image."""

    request: Request
    targets: list[int]  # none: the predicted class
    arguments: Namespace

    def name_files(self, stem: str) -> list[str]:
        """The names of an image's files: the figure, then the arrays in the order of methods, layers and targets."""
        figure = name_figure(stem)
        if not self.arguments.save_array:
            return [figure]
        suffixes = [f"_{target}" for target in self.targets] if len(self.targets) > 1 else [""]
        keys = [method.key for method in self.request.methods]
        arrays = product(keys, self.request.layers, suffixes)
        return [figure, *(f"{stem}_{key}_{layer}{suffix}.npy" for key, layer, suffix in arrays)]


def create_task(classifier: Classifier, arguments: Namespace) -> Task:
    """Find the targets and the layers.

    Raises:
        UsageError: one does not exist, or there are too many of them for a figure.
    """
    targets = deduplicate(find_classes(arguments.target or [], classifier.classes))
    layers = deduplicate(classifier.default_layers if arguments.layers is None else arguments.layers)
    found = classifier.at(layers)
    if (rows := len(layers) * max(1, len(targets))) > MAX_ROWS:
        raise UsageError(
            f"{len(layers)} layers and {max(1, len(targets))} classes are {rows} rows, but a figure has at most "
            f"{MAX_ROWS}: leave some out, or let holistic-cam batch compute the maps"
        )
    request = Request(classifier, found, select_methods(arguments), arguments.aug_smooth, arguments.eigen_smooth)
    return Task(request, targets, arguments)


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
    if arrays := task.name_files(stem)[1:]:
        maps = (one for of_method in explanation.maps for of_layer in of_method for one in of_layer)
        for array, saliency_map in zip(arrays, maps, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, saliency_map)
            write_file(task.arguments.output, array, buffer.getvalue())


def describe_predicted(classifier: Classifier, explanation: Explanation) -> str:
    """The predicted class and its probability."""
    predicted = explanation.predicted
    return f"{classifier.classes[predicted]} ({explanation.probabilities[predicted]:.1%})"


def name_figure(stem: str) -> str:
    """The name of a figure's file."""
    return f"{stem}_holistic_cam.png"
