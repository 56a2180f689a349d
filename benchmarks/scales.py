"""Fig. 3: the model's confidence and the map at each scale of the pyramid, the fused map, and the denoised one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.candidates import scale_probabilities
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, command, prepared, run
from holistic_cam_plugin import HolisticCAM, fuse, min_max_normalize, pyramid_sizes
from holistic_cam_plugin.batch.journal import Row
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.method.intermediates import Intermediates

COLUMNS = ("image", "class_index", "height", "width", "probability")


def scale_maps(record: Intermediates) -> list[NDArray[np.float32]]:
    """The map of each scale alone, `(H, W)` in [0, 1]."""
    size = record.fused.shape
    maps = [fuse([a], [w], size) for a, w in zip(record.activations, record.weights, strict=True)]
    return [min_max_normalize(one.cpu().numpy()) for one in maps]


def make(arguments: argparse.Namespace) -> Evaluate:
    """The pyramid of one image, with the model loaded."""
    classifier = load_model(arguments)
    return lambda task: _drawn(task, classifier, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment; every image has its PNG in the folder `scales`."""
    arguments = experiment_parser(__doc__, samples=4).parse_args(argv)
    print(run(make, arguments, prepared(arguments), COLUMNS, "scales"))


def _drawn(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """One row a scale; one row of panels a layer."""
    image, target = load(task.sample, classifier).image, ClassifierOutputTarget(task.sample.label)
    found = classifier.found.at(arguments.layers)
    cam = HolisticCAM(found.model, found.target_layers, **found.options)
    sizes = pyramid_sizes(image.shape[-2], image.shape[-1])
    probabilities = scale_probabilities(classifier.model, image, task.sample.label)
    labels = [f"{w} px, p = {p:.2f}" for (_, w), p in zip(sizes, probabilities, strict=True)]
    picture = classifier.preprocessing.shown(image)
    rows = []
    for layer, (record,) in zip(arguments.layers, cam.intermediates(image, [target]), strict=True):
        fused = [("fused", min_max_normalize(record.fused)), ("fused, denoised", record.saliency_map)]
        rows.append((layer, picture, [*zip(labels, scale_maps(record), strict=True), *fused]))
    save_panels(arguments.output / "scales" / f"{task.sample.name.replace('/', '_')}.png", rows)
    known = {"image": task.sample.name, "class_index": task.sample.label}
    return [
        known | {"height": height, "width": width, "probability": probability}
        for (height, width), probability in zip(sizes, probabilities, strict=True)
    ]


if __name__ == "__main__":
    command(main)
