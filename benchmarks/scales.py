"""Fig. 3: the model's confidence and the map at each scale of the pyramid, the fused map, and the denoised one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import Evaluate, Task, command, prepared, run
from benchmarks.harness.table_file import Row
from benchmarks.stages import Stages, holistic_map, pyramid_stages
from holistic_cam_plugin import fuse, min_max_normalize, positive_gradient_weights
from holistic_cam_plugin.classifiers.images import shown
from holistic_cam_plugin.classifiers.models import Classifier

COLUMNS = ("image", "class_index", "height", "width", "probability")


def scale_map(stages: Stages, layer: str, scale: int) -> NDArray[np.float32]:
    """The map of one scale alone, `(H, W)` in [0, 1]."""
    activation, gradient = stages.activations[layer][scale], stages.gradients[layer][scale]
    weights = positive_gradient_weights(activation[None], gradient[None])[0]
    return min_max_normalize(fuse([activation], [weights], stages.size).cpu().numpy())


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
    stages = pyramid_stages(classifier.model, arguments.layers, image, target)
    picture = shown(image, classifier)
    rows = []
    for layer in arguments.layers:
        labels = [f"{w} px, p = {p:.2f}" for (_, w), p in zip(stages.sizes, stages.probabilities, strict=True)]
        maps = [scale_map(stages, layer, scale) for scale in range(len(stages.sizes))]
        fused = [("fused", holistic_map(stages, layer, fsd=False)), ("fused, denoised", holistic_map(stages, layer))]
        rows.append((layer, picture, [*zip(labels, maps, strict=True), *fused]))
    save_panels(arguments.output / "scales" / f"{task.sample.name.replace('/', '_')}.png", rows)
    known = {"image": task.sample.name, "class_index": task.sample.label}
    return [
        known | {"height": height, "width": width, "probability": probability}
        for (height, width), probability in zip(stages.sizes, stages.probabilities, strict=True)
    ]


if __name__ == "__main__":
    command(main)
