"""Fig. 3: the model's confidence and the map at each scale, the fused map without and with the mask."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, choose_tasks, run, run_main
from benchmarks.harness.table_file import Row
from holistic_cam_plugin import HolisticCAM, fuse, min_max_normalize, pyramid_sizes, resize_image
from holistic_cam_plugin.method.intermediates import Intermediates
from holistic_cam_plugin.methods import pyramid_options
from holistic_cam_plugin.models.classifier import Classifier

COLUMNS = ("image", "class_index", "height", "width", "probability")


def compute_scale_maps(record: Intermediates) -> list[NDArray[np.float32]]:
    """Compute the map of each scale alone, `(H, W)` in [0, 1]."""
    size = record.fused.shape
    maps = [fuse([a], [w], size) for a, w in zip(record.activations, record.weights, strict=True)]
    return [min_max_normalize(one.cpu().numpy()) for one in maps]


@torch.inference_mode()
def predict_probabilities(model: nn.Module, image: Tensor, category: int) -> list[float]:
    """Predict the class's probability in the image `(1, 3, H, W)` at each scale of the pyramid."""
    sizes = pyramid_sizes(image.shape[-2], image.shape[-1])
    return [float(model(resize_image(image, size)).softmax(dim=1)[0, category]) for size in sizes]


def make(arguments: argparse.Namespace) -> Evaluate:
    """Load the model, and build the function that draws one image."""
    classifier = load_model(arguments)
    return lambda task: _draw(task, classifier, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment, and draw one PNG per image into the folder `scales`."""
    arguments = make_parser(__doc__, samples=4).parse_args(argv)
    print(run(make, arguments, choose_tasks(arguments), COLUMNS, "scales"))


def _draw(task: Task, classifier: Classifier, arguments: argparse.Namespace) -> list[Row]:
    """Draw one row of panels per layer; return one row per scale."""
    image, target = load(task.sample, classifier).image, ClassifierOutputTarget(task.sample.label)
    found = classifier.at(arguments.layers)
    cam = HolisticCAM(found.model, found.target_layers, **pyramid_options(HolisticCAM, found.options))
    sizes = pyramid_sizes(image.shape[-2], image.shape[-1])
    probabilities = predict_probabilities(classifier.model, image, task.sample.label)
    labels = [f"{w} px, p = {p:.2f}" for (_, w), p in zip(sizes, probabilities, strict=True)]
    picture = classifier.preprocessing.denormalize(image)
    rows = []
    for layer, (record,) in zip(arguments.layers, cam.intermediates(image, [target]), strict=True):
        fused = [("fused", min_max_normalize(record.fused)), ("fused, masked", record.saliency_map)]
        rows.append((layer, picture, [*zip(labels, compute_scale_maps(record), strict=True), *fused]))
    save_panels(arguments.output / "scales" / f"{task.sample.name.replace('/', '_')}.png", rows)
    known = {"image": task.sample.name, "class_index": task.sample.label}
    return [
        known | {"height": height, "width": width, "probability": probability}
        for (height, width), probability in zip(sizes, probabilities, strict=True)
    ]


if __name__ == "__main__":
    run_main(main)
