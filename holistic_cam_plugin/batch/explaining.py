"""From a batch of pixels to every image's maps and scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin.baselines.by_name import METHODS, display_name, layer_maps
from holistic_cam_plugin.classifiers.layers import find_layers
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.holistic_cam import HolisticCAM

__all__ = ["Explainer", "Explanation", "check_amp", "explain", "model_outputs"]


class Explainer(NamedTuple):
    """What makes the maps."""

    classifier: Classifier
    layers: Sequence[str]
    methods: Sequence[str]  # keys of METHODS
    sizes: Sequence[int] | None  # of the pyramid, in pixels; None: each method's own
    amp: bool  # bfloat16 where PyTorch holds it safe


class Explanation(NamedTuple):
    """One image."""

    maps: NDArray[np.float32]  # (methods, layers, targets, H, W), in [0, 1]
    targets: tuple[int, ...]
    predicted: int
    scores: list[float]  # the model's output for each target
    probabilities: list[float]  # its softmax
    seconds: list[float]  # of each method: the batch's time divided by its images


def check_amp(methods: Sequence[str]) -> None:
    """UsageError for methods that can't run in bfloat16: the library's own hand it to NumPy, which has no such type."""
    unfit = [display_name(method) for method in methods if not issubclass(METHODS[method], HolisticCAM)]
    if unfit:
        raise UsageError(f"--amp works with holisticcam and cameras: leave out {', '.join(unfit)}, or --amp")


def explain(explainer: Explainer, images: torch.Tensor, targets: Sequence[tuple[int, ...]]) -> list[Explanation]:
    """The maps of images `(B, 3, H, W)` on the model's device.

    Args:
        targets: for each image its classes; none: the predicted one.

    Raises:
        UsageError: the model takes no such images, or a method can't explain it, or not in these layers.
    """
    autocast = partial(torch.autocast, images.device.type, torch.bfloat16, enabled=explainer.amp)
    # One for each: older torch keeps the weights that it casts, and those of inference mode take no gradients.
    with autocast():
        outputs = model_outputs(explainer, images)
    predicted = outputs.argmax(dim=1).tolist()
    chosen = [some or (best,) for some, best in zip(targets, predicted, strict=True)]
    with autocast():
        maps, seconds = zip(
            *(_timed_maps(explainer, method, images, chosen) for method in explainer.methods), strict=True
        )
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
    """The model's outputs for images `(B, 3, H, W)`: `(B, classes)`, float32.

    Raises:
        UsageError: it takes no such images.
    """
    try:
        with torch.inference_mode():
            outputs: torch.Tensor = explainer.classifier.model(images).float()
    except Exception as error:  # models raise whatever they like
        size = " x ".join(map(str, images.shape[:1:-1]))
        raise UsageError(f"{explainer.classifier.name} can't take images of {size} px: {_words(error)}") from error
    return outputs


def _timed_maps(
    explainer: Explainer, method: str, images: torch.Tensor, targets: Sequence[tuple[int, ...]]
) -> tuple[NDArray[np.float32], float]:
    """A method's maps `(layers, targets of all images, H, W)`, and its seconds."""
    model = explainer.classifier.model
    wanted = [[ClassifierOutputTarget(target) for target in some] for some in targets]
    start = time.perf_counter()
    # RandomCAM draws: the same when a batch is made again.
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        maps = layer_maps(method, model, find_layers(model, explainer.layers), images, wanted, sizes=explainer.sizes)
    except Exception as error:
        layers = ", ".join(explainer.layers)
        raise UsageError(f"{display_name(method)} can't explain {layers}: {_words(error)}") from error
    return np.stack(maps), time.perf_counter() - start


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
