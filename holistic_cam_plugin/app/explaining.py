"""The maps of one picture, a method at a time, so that the first ones are seen early and a person can stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from holistic_cam_plugin.app.choices import HOLISTIC_CAM, Choice, Column
from holistic_cam_plugin.baselines.by_name import layer_maps
from holistic_cam_plugin.classifiers.images import preprocessed
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.holistic_cam import HolisticCAM

__all__ = ["Explained", "Seen", "Stopped", "explain", "look"]

Maps = NDArray[np.float32]
Progress = Callable[[str, Iterable[Any]], Iterable[Any]]


class Seen(NamedTuple):
    """A picture as the model sees it."""

    images: Tensor  # (1, 3, H, W)
    picture: NDArray[np.float32]  # (H, W, 3), RGB, in [0, 1]
    probabilities: NDArray[np.float32]  # (classes,)


class Explained(NamedTuple):
    """A picture's maps, those of the first columns while the others are being computed."""

    picture: NDArray[np.float32]
    choice: Choice
    maps: list[list[Maps]]  # for every column that is done, for every layer, (targets, H, W), float32, in [0, 1]


class Stopped(BaseException):
    """Somebody asked for it. Not an Exception: no method takes it for a failure of its own."""


def look(image: Image.Image, classifier: Classifier) -> Seen:
    """The picture through the model once."""
    images = preprocessed(image, classifier)
    probabilities = classifier.probabilities(images)[0]
    return Seen(images, classifier.preprocessing.shown(images), probabilities.cpu().numpy())


def explain(
    classifier: Classifier, seen: Seen, choice: Choice, progress: Progress, stopped: Callable[[], bool]
) -> Iterator[Explained]:
    """The maps after each column.

    Args:
        progress: wraps an iteration; it is told of what first.
        stopped: asked before every pass through the model.

    Raises:
        Stopped: `stopped` said so.
        UsageError: a method can't explain the layers.
    """
    maps: list[list[Maps]] = []
    for number, column in enumerate(choice.columns, start=1):
        about = f"{number} of {len(choice.columns)}: {column.label.splitlines()[0]}"
        with _interruptible(classifier.model, stopped):
            maps.append(_column_maps(classifier, seen, choice, column, partial(progress, about)))
        yield Explained(seen.picture, choice, list(maps))


def _column_maps(
    classifier: Classifier, seen: Seen, choice: Choice, column: Column, progress: Callable[[Iterable[Any]], Any]
) -> list[Maps]:
    found = classifier.found.at(choice.layers)
    targets = [[ClassifierOutputTarget(target) for target in choice.targets]]
    try:
        if column.method == HOLISTIC_CAM:
            options = {**found.options, **column.options}
            with HolisticCAM(found.model, found.target_layers, **options, progress=progress) as cam:
                return [maps[:, 0] for maps in cam.compute_cam_per_layer(seen.images, targets)]
        (maps,) = [
            layer_maps(column.method, found.model, found.target_layers, seen.images, targets, options=found.options)
            for _ in progress([column])
        ]
        return maps
    except (ValueError, TypeError, RuntimeError) as error:
        name = column.label.splitlines()[0]
        raise UsageError(f"{name} can't explain {', '.join(choice.layers)}: {error}") from error


@contextmanager
def _interruptible(model: nn.Module, stopped: Callable[[], bool]) -> Iterator[None]:
    """In the body, a pass through the model raises Stopped as soon as `stopped` says so."""

    def check(*_: object) -> None:
        if stopped():
            raise Stopped

    handle = model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
