"""From a batch of pixels to every image's maps and scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin.baselines.by_name import display_name, layer_maps
from holistic_cam_plugin.classifiers.explainable import Explainable
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.passes.clock import stage

__all__ = ["Explainer", "Explanation", "explain", "model_outputs"]


class Explainer(NamedTuple):
    """What makes the maps."""

    classifier: Classifier
    found: Explainable  # the classifier at the layers to explain
    methods: Sequence[str]  # keys of METHODS
    sizes: Sequence[int] | str | None  # of the pyramid, in pixels, or its name; None: each method's own
    amp: bool  # the pyramids' model in bfloat16

    @property
    def layers(self) -> list[str]:
        """Names of the target layers."""
        return self.found.layer_names


class Explanation(NamedTuple):
    """One image."""

    maps: NDArray[np.float32]  # (methods, layers, targets, H, W), in [0, 1]
    targets: tuple[int, ...]
    predicted: int
    scores: list[float]  # the model's output for each target
    probabilities: list[float]  # its softmax
    seconds: list[float]  # of each method: the batch's time divided by its images


def explain(explainer: Explainer, images: torch.Tensor, targets: Sequence[tuple[int, ...]]) -> list[Explanation]:
    """The maps of images `(B, C, H, W)` on the model's device.

    Args:
        targets: for each image its classes; none: the predicted one.

    Raises:
        UsageError: the model takes no such images, or a method can't explain it, or not in these layers.
    """
    outputs = model_outputs(explainer, images)
    predicted = outputs.argmax(dim=1).tolist()
    chosen = [some or (best,) for some, best in zip(targets, predicted, strict=True)]
    maps, seconds = zip(*(_timed_maps(explainer, method, images, chosen) for method in explainer.methods), strict=True)
    probabilities = outputs.softmax(dim=1)
    stacked = np.stack(maps)  # (methods, layers, targets of all images, H, W)
    ends = np.cumsum([len(some) for some in chosen])[:-1]
    return [
        Explanation(
            image_maps,
            some,
            best,
            [float(output[target]) for target in some],
            [float(probability[target]) for target in some],
            [batch_seconds / len(images) for batch_seconds in seconds],
        )
        for image_maps, some, best, output, probability in zip(
            np.split(stacked, ends, axis=2), chosen, predicted, outputs, probabilities, strict=True
        )
    ]


def model_outputs(explainer: Explainer, images: torch.Tensor) -> torch.Tensor:
    """The model's outputs for images `(B, C, H, W)`: `(B, classes)`, float32.

    Raises:
        UsageError: it takes no such images.
    """
    try:
        with stage("model", images.device), torch.inference_mode():
            outputs: torch.Tensor = explainer.classifier.model(images).float()
    except Exception as error:  # models raise whatever they like
        size = " x ".join(map(str, images.shape[:1:-1]))
        raise UsageError(f"{explainer.classifier.name} can't take images of {size} px: {_words(error)}") from error
    return outputs


def _timed_maps(
    explainer: Explainer, method: str, images: torch.Tensor, targets: Sequence[tuple[int, ...]]
) -> tuple[NDArray[np.float32], float]:
    """A method's maps `(layers, targets of all images, H, W)`, and its seconds."""
    found = explainer.found
    wanted = [[ClassifierOutputTarget(target) for target in some] for some in targets]
    start = time.perf_counter()
    # RandomCAM draws: the same when a batch is made again.
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        maps = layer_maps(
            method, found.model, found.target_layers, images, wanted,
            sizes=explainer.sizes, amp=explainer.amp, options=found.options,
        )  # fmt: skip
    except Exception as error:
        named = ", ".join(explainer.layers)
        raise UsageError(f"{display_name(method)} can't explain {named}: {_words(error)}") from error
    return np.stack(maps), time.perf_counter() - start


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
