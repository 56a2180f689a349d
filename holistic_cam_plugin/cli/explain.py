"""Runs of the command line: explain images, explain the bundled demo."""

from __future__ import annotations

import io
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from tqdm import tqdm

from holistic_cam_plugin.baselines.by_name import display_name, layer_maps
from holistic_cam_plugin.classifiers.classes import class_indices
from holistic_cam_plugin.classifiers.explainable import Explainable
from holistic_cam_plugin.classifiers.images import check_proportions, preprocessed, read_image
from holistic_cam_plugin.classifiers.models import Classifier, demo_classifier, load_classifier
from holistic_cam_plugin.cli.outputs import array_name, figure_name, output_stems, prepared_folder, shown_name, written
from holistic_cam_plugin.cli.printing import tell
from holistic_cam_plugin.demo import demo_image
from holistic_cam_plugin.display.figure import MOST_ROWS, figure_rows, save_figure
from holistic_cam_plugin.errors import UsageError

__all__ = ["explain_demo", "explain_images"]

Maps = NDArray[np.float32]
Given = TypeVar("Given")

# Nothing on a screen that is no terminal.
_progress = partial(tqdm, disable=None, leave=False)


def explain_images(arguments: Namespace) -> None:
    """One figure an image; everything that can be refused is refused before the first one is computed.

    What is given twice, an image, a layer, a class or a method, is taken once.

    Raises:
        UsageError: what the user can correct.
        OutputError: the output can't be written.
    """
    sizes = {path: read_image(path).size for path in arguments.images}
    classifier = load_classifier(arguments.model, arguments.weights, arguments.labels, arguments.device)
    for path, size in sizes.items():
        with _named(path):
            check_proportions(size, classifier.preprocessing)
    task = _task(classifier, arguments)
    stems = output_stems(sizes)
    folder = prepared_folder(arguments.output_dir, (name for stem in stems for name in task.outputs(stem)))
    for path, stem in zip(_progress(sizes, desc="images"), stems, strict=True):
        image = read_image(path)
        with _named(path):
            images = preprocessed(image, classifier)
            _explain(task, images, shown_name(path), folder, stem)


def explain_demo(arguments: Namespace) -> None:
    """The bundled digits model and scene: no network, no files."""
    task = _task(demo_classifier(arguments.device), arguments)
    folder = prepared_folder(arguments.output_dir, task.outputs("demo"))
    _explain(task, preprocessed(demo_image(), task.classifier), "bundled demo", folder, "demo")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise a UsageError of the body with the file's name."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


class _Task(NamedTuple):
    """What is asked of every image."""

    classifier: Classifier
    found: Explainable  # the classifier at the layers to explain
    methods: list[str]
    targets: list[int] | None  # None: the predicted class
    arguments: Namespace

    @property
    def layers(self) -> list[str]:
        return self.found.layer_names

    def outputs(self, stem: str) -> list[str]:
        """The names of an image's files: the figure, then the arrays in the order of methods, layers and targets."""
        if not self.arguments.save_array:
            return [figure_name(stem)]
        several = self.targets if self.targets and len(self.targets) > 1 else [None]
        arrays = product(self.methods, self.layers, several)
        return [figure_name(stem), *(array_name(stem, *which) for which in arrays)]


def _task(classifier: Classifier, arguments: Namespace) -> _Task:
    targets = None if arguments.target is None else _once(class_indices(arguments.target, classifier.classes))
    layers = _once(classifier.stages if arguments.layers is None else arguments.layers)
    found = classifier.found.at(layers)
    if (rows := len(layers) * len(targets or [0])) > MOST_ROWS:
        raise UsageError(
            f"{len(layers)} layers and {len(targets or [0])} classes are {rows} rows, and a figure has room for "
            f"{MOST_ROWS}: leave some out, or let holistic-cam batch make the maps"
        )
    return _Task(classifier, found, _once(arguments.methods), targets, arguments)


def _once(given: Iterable[Given]) -> list[Given]:
    return list(dict.fromkeys(given))


def _explain(task: _Task, images: Tensor, name: str, folder: Path, stem: str) -> None:
    """Compute and write the figure of one image `(1, 3, H, W)` and print what it shows."""
    probabilities = task.classifier.probabilities(images)[0]
    predicted = int(probabilities.argmax())
    targets = [predicted] if task.targets is None else task.targets
    maps: list[list[Maps]] = []
    seconds: list[str] = []
    for method in task.methods:
        start = time.perf_counter()
        maps.append(_maps(task, method, images, targets))
        seconds.append(f"{display_name(method)} {time.perf_counter() - start:.2f}")
    names = [task.classifier.classes[target] for target in targets]
    prediction = f"{task.classifier.classes[predicted]} ({float(probabilities[predicted]):.1%})"
    title = f"{name}: {prediction}" if targets == [predicted] else f"{name}: {', '.join(names)}; predicted {prediction}"
    figure, *arrays = task.outputs(stem)
    if arrays:
        for array, saliency_map in zip(arrays, chain.from_iterable(chain.from_iterable(maps)), strict=True):
            written(folder, array, _npy(saliency_map))
    path = written(folder, figure, _png(task, images, figure_rows(task.layers, names, maps), title))
    tell(
        f"{path}\n  predicted: {prediction}, class {predicted} of {len(task.classifier.classes)}\n"
        f"  seconds: {', '.join(seconds)}"
    )


def _maps(task: _Task, method: str, images: Tensor, targets: Sequence[int]) -> list[Maps]:
    """For every layer, one image's maps `(targets, H, W)`; UsageError where the method can't explain it."""
    try:
        return layer_maps(
            method,
            task.classifier.model,
            task.found.target_layers,
            images,
            [[ClassifierOutputTarget(target) for target in targets]],
            aug_smooth=task.arguments.aug_smooth,
            eigen_smooth=task.arguments.eigen_smooth,
            sizes=task.arguments.sizes,
            amp=task.arguments.amp,
            progress=partial(_progress, desc=f"{display_name(method)}, scales"),
            options=task.found.options,
        )
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise UsageError(f"{display_name(method)} can't explain {', '.join(task.layers)}: {error}") from error


def _npy(saliency_map: Maps) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, saliency_map)
    return buffer.getvalue()


def _png(task: _Task, images: Tensor, rows: Sequence[tuple[str, list[Maps]]], title: str) -> bytes:
    buffer = io.BytesIO()
    columns = [display_name(method) for method in task.methods]
    colours = {"scale": task.arguments.scale, "colormap": task.arguments.colormap}
    save_figure(buffer, task.classifier.preprocessing.shown(images), rows, columns, title, **colours)
    return buffer.getvalue()
