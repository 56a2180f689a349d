"""Runs of the command line: explain images, explain the bundled demo, list a model's layers."""

from __future__ import annotations

import re
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from tqdm import tqdm

from holistic_cam_plugin.baselines.by_name import display_name, layer_maps
from holistic_cam_plugin.classifiers.classes import class_indices
from holistic_cam_plugin.classifiers.images import preprocessed, read_image, shown
from holistic_cam_plugin.classifiers.layers import find_layers, probe_layers, stage_layers
from holistic_cam_plugin.classifiers.models import Classifier, demo_classifier, load_classifier
from holistic_cam_plugin.demo import demo_image
from holistic_cam_plugin.display.figure import save_figure
from holistic_cam_plugin.errors import UsageError

__all__ = ["explain_demo", "explain_images", "list_layers"]

Maps = NDArray[np.float32]

# Nothing on a screen that is no terminal.
_progress = partial(tqdm, disable=None, leave=False)


def explain_images(arguments: Namespace) -> None:
    """One figure an image; everything that can be refused is refused before the first one is computed."""
    images = [read_image(path) for path in arguments.images]
    classifier = load_classifier(arguments.model, arguments.weights, arguments.labels, arguments.device)
    layers = _layer_names(classifier, arguments)
    targets = None if arguments.target is None else class_indices(arguments.target, classifier.classes)
    folder = _output_folder(arguments.output_dir)
    stems = _unique_stems(arguments.images)
    for image, path, stem in zip(_progress(images, desc="images"), arguments.images, stems, strict=True):
        _explain(classifier, preprocessed(image, classifier), path.name, layers, targets, folder / stem, arguments)


def explain_demo(arguments: Namespace) -> None:
    """The bundled digits model and scene: no network, no files."""
    classifier = demo_classifier(arguments.device)
    layers = _layer_names(classifier, arguments)
    images = preprocessed(demo_image(), classifier)
    folder = _output_folder(arguments.output_dir)
    _explain(classifier, images, "bundled demo", layers, None, folder / "demo", arguments)


def list_layers(arguments: Namespace) -> None:
    """Print the layers that give maps, with their shapes, in the order in which they run."""
    classifier = load_classifier(
        arguments.model, arguments.weights, arguments.labels, arguments.device, untrained=arguments.weights is None
    )
    layers = probe_layers(classifier.model, classifier.size, classifier.mean.device)
    stages = stage_layers(layers, classifier.size, len(classifier.classes))
    width = max(len(layer.name) for layer in layers)
    print(f"{classifier.name} at {classifier.size}x{classifier.size} px; * marks the default layers")
    for layer in layers:
        shape = "x".join(map(str, layer.shape))
        print(f"{'*' if layer.name in stages else ' '} {layer.name:{width}}  {shape:>12}  {layer.kind}")


def _explain(
    classifier: Classifier,
    images: Tensor,
    name: str,
    layers: Sequence[str],
    targets: Sequence[int] | None,
    stem: Path,
    arguments: Namespace,
) -> None:
    """Compute and write the figure of one image `(1, 3, H, W)` and print what it shows."""
    with torch.inference_mode():
        probabilities = classifier.model(images)[0].softmax(dim=0)
    predicted = int(probabilities.argmax())
    targets = [predicted] if targets is None else targets
    maps: list[list[Maps]] = []
    seconds: list[str] = []
    for method in arguments.methods:
        start = time.perf_counter()
        maps.append(_maps(classifier, method, images, layers, targets, arguments))
        seconds.append(f"{display_name(method)} {time.perf_counter() - start:.2f}")
    if arguments.save_array:
        _save_arrays(stem, arguments.methods, layers, targets, maps)
    prediction = f"{classifier.classes[predicted]} ({float(probabilities[predicted]):.1%})"
    explained = ", ".join(classifier.classes[target] for target in targets)
    title = f"{name}: {prediction}" if targets == [predicted] else f"{name}: {explained}; predicted {prediction}"
    rows = _rows(layers, [classifier.classes[target] for target in targets], maps)
    figure = Path(f"{stem}_holistic_cam.png")
    columns = [display_name(method) for method in arguments.methods]
    save_figure(
        figure, shown(images, classifier), rows, columns, title, scale=arguments.scale, colormap=arguments.colormap
    )
    tqdm.write(f"{figure}\n  predicted: {prediction}, class {predicted} of {len(classifier.classes)}")
    tqdm.write(f"  seconds: {', '.join(seconds)}")


def _maps(
    classifier: Classifier,
    method: str,
    images: Tensor,
    layers: Sequence[str],
    targets: Sequence[int],
    arguments: Namespace,
) -> list[Maps]:
    """For every layer, one image's maps `(targets, H, W)`; UsageError where the method can't explain it."""
    try:
        return layer_maps(
            method,
            classifier.model,
            find_layers(classifier.model, layers),
            images,
            [[ClassifierOutputTarget(target) for target in targets]],
            aug_smooth=arguments.aug_smooth,
            eigen_smooth=arguments.eigen_smooth,
            progress=partial(_progress, desc=f"{display_name(method)}, scales"),
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"{display_name(method)} can't explain {', '.join(layers)}: {error}") from error


def _rows(
    layers: Sequence[str], classes: Sequence[str], maps: Sequence[Sequence[Maps]]
) -> list[tuple[str, list[Maps]]]:
    """The figure's: for every class every layer, each with its label and every method's map."""
    return [
        (layer if len(classes) == 1 else f"{layer}\n{name}", [of_method[n][m] for of_method in maps])
        for m, name in enumerate(classes)
        for n, layer in enumerate(layers)
    ]


def _save_arrays(
    stem: Path, methods: Sequence[str], layers: Sequence[str], targets: Sequence[int], maps: Sequence[Sequence[Maps]]
) -> None:
    """One file a map."""
    for method, of_method in zip(methods, maps, strict=True):
        for layer, of_layer in zip(layers, of_method, strict=True):
            for target, saliency_map in zip(targets, of_layer, strict=True):
                suffix = f"_{target}" if len(targets) > 1 else ""
                np.save(f"{stem}_{method}_{layer}{suffix}.npy", saliency_map)


def _layer_names(classifier: Classifier, arguments: Namespace) -> list[str]:
    if arguments.layers is not None:
        find_layers(classifier.model, arguments.layers)
        return list(arguments.layers)
    layers = probe_layers(classifier.model, classifier.size, classifier.mean.device)
    return stage_layers(layers, classifier.size, len(classifier.classes))


def _output_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the output folder {folder} can't be made: {error}") from error
    return folder


def _unique_stems(paths: Sequence[Path]) -> list[str]:
    """File names without endings; a second image of the same name gets a number."""
    stems: list[str] = []
    for path in paths:
        stem, number = path.stem, 2
        while stem in stems:
            stem, number = f"{path.stem}_{number}", number + 1
        stems.append(re.sub(r"\s", "_", stem))
    return stems
