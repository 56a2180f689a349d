"""Fig. 4: what weights add to the activations: their plain sum, one weight a channel, one weight an element.

All on the untouched image: the channel's weight is the mean of its gradient (Grad-CAM), the element's is the positive
gradient weight (eq. 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.harness.arguments import experiment_parser
from benchmarks.harness.data import load
from benchmarks.harness.figures import save_panels
from benchmarks.harness.models import load_model
from benchmarks.harness.runner import command, prepared
from benchmarks.stages import Stages, pyramid_stages
from holistic_cam_plugin import fuse, min_max_normalize, positive_gradient_weights
from holistic_cam_plugin.classifiers.images import shown

__all__ = ["weightings"]


def weightings(stages: Stages, layer: str) -> dict[str, NDArray[np.float32]]:
    """The maps of the base scale by the kind of their weights, `(H, W)` in [0, 1]."""
    activation, gradient = stages.activations[layer][0], stages.gradients[layer][0]
    weights: dict[str, Tensor] = {
        "activation sum": activation.new_ones(activation.shape),
        "channel-wise": gradient.mean(dim=(1, 2), keepdim=True).expand_as(gradient),
        "element-wise": positive_gradient_weights(activation[None], gradient[None])[0],
    }
    maps = {name: fuse([activation], [weight], stages.size) for name, weight in weights.items()}
    return {name: min_max_normalize(one.cpu().numpy()) for name, one in maps.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one PNG an image into the folder `weighting`."""
    arguments = experiment_parser(__doc__, samples=4).parse_args(argv)
    tasks = prepared(arguments)
    classifier = load_model(arguments)
    for task in tasks:
        image = load(task.sample, classifier).image
        target = ClassifierOutputTarget(task.sample.label)
        stages = pyramid_stages(classifier.model, arguments.layers, image, target, num_scales=1)
        picture = shown(image, classifier)
        rows = [(layer, picture, list(weightings(stages, layer).items())) for layer in arguments.layers]
        path = arguments.output / "weighting" / f"{task.sample.name.replace('/', '_')}.png"
        save_panels(path, rows)
        print(path)


if __name__ == "__main__":
    command(main)
