"""From images to maps, by several methods: serves the command line, batch jobs and the explorer.

predict(classifier, images) -> Prediction
explain(request, prediction, targets) -> one Explanation per image, again after each method
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from holistic_cam_plugin.errors import UsageError, describe_error
from holistic_cam_plugin.methods import Method, Progress, compute_maps
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.explainable import Explainable

__all__ = ["Explanation", "Prediction", "Request", "explain", "predict"]


class Request(NamedTuple):
    """What to explain, and by which methods.

    Attributes:
        classifier: the model and its classes.
        found: what `Classifier.at` returns for the layers to explain.
        methods: with their options.
        aug_smooth, eigen_smooth: as in pytorch-grad-cam, for all methods.
    """

    classifier: Classifier
    found: Explainable
    methods: Sequence[Method]
    aug_smooth: bool = False
    eigen_smooth: bool = False

    @property
    def layers(self) -> list[str]:
        """Names of the target layers."""
        return self.found.layer_names


class Prediction(NamedTuple):
    """Images and the model's outputs for them.

    Attributes:
        images: `(B, C, H, W)`, on the model's device.
        scores: the outputs, `(B, classes)`.
        probabilities: their softmax, `(B, classes)`.
    """

    images: Tensor
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class Explanation(NamedTuple):
    """The maps of one image.

    Attributes:
        methods: all the methods of the request.
        layers: names of the target layers.
        targets: class indices.
        predicted: index of the class with the highest score.
        scores: the model's output for each class.
        probabilities: their softmax.
        maps: for each method that is done, `(layers, targets, H, W)`, in [0, 1].
        seconds: of each method that is done; for a batch, the mean per image.
    """

    methods: Sequence[Method]
    layers: Sequence[str]
    targets: Sequence[int]
    predicted: int
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    maps: list[NDArray[np.float32]]
    seconds: list[float]


def predict(classifier: Classifier, images: Tensor) -> Prediction:
    """Run the model on images `(B, C, H, W)`.

    Raises:
        UsageError: the model does not take images of this size, or returns NaN.
    """
    try:
        with torch.inference_mode():
            scores = classifier.model(images).float()
            probabilities = scores.softmax(dim=1).cpu().numpy()
    except Exception as error:  # models raise errors of any type
        size = " x ".join(map(str, images.shape[:1:-1]))
        raise UsageError(f"{classifier.name} does not take images of {size} px: {describe_error(error)}") from error
    if not np.isfinite(probabilities).all():
        raise UsageError(f"{classifier.name} returns NaN: there is nothing to explain")
    return Prediction(images, scores.cpu().numpy(), probabilities)


def explain(
    request: Request,
    prediction: Prediction,
    targets: Sequence[Sequence[int]],
    progress: Callable[[Method, Iterable[Any]], Iterable[Any]] | None = None,
) -> Iterator[list[Explanation]]:
    """Compute the maps of a batch of images, one method after the other.

    Args:
        targets: for each image its classes; if there are none, the predicted class is explained.
        progress: wraps the method's loop over the scales or layers.

    Yields:
        An explanation for each image, after each method.

    Raises:
        UsageError: a method cannot explain the layers.
    """
    predicted = prediction.scores.argmax(axis=1).tolist()
    chosen = [some or [best] for some, best in zip(targets, predicted, strict=True)]
    explanations = [
        Explanation(request.methods, request.layers, *of_image, [], [])
        for of_image in zip(chosen, predicted, prediction.scores, prediction.probabilities, strict=True)
    ]
    ends = np.cumsum([len(some) for some in chosen])[:-1]
    for method in request.methods:
        start = time.perf_counter()
        maps = _explain_by(request, method, prediction.images, chosen, progress and partial(progress, method))
        seconds = (time.perf_counter() - start) / len(explanations)
        explanations = [
            one._replace(maps=[*one.maps, of_image], seconds=[*one.seconds, seconds])
            for one, of_image in zip(explanations, np.split(maps, ends, axis=1), strict=True)
        ]
        yield explanations


def _explain_by(
    request: Request,
    method: Method,
    images: Tensor,
    targets: Sequence[Sequence[int]],
    progress: Progress | None,
) -> NDArray[np.float32]:
    found = request.found
    np.random.seed(0)  # RandomCAM gives the same maps in every run
    torch.manual_seed(0)
    try:
        return compute_maps(
            method, found.model, found.target_layers, images,
            [[ClassifierOutputTarget(target) for target in some] for some in targets],
            needed=found.options, aug_smooth=request.aug_smooth, eigen_smooth=request.eigen_smooth, progress=progress,
        )  # fmt: skip
    except Exception as error:  # models and methods raise errors of any type
        layers = ", ".join(request.layers)
        raise UsageError(f"{method.name} cannot explain {layers}: {describe_error(error)}") from error
