"""Models under test: whatever the command line takes, or the bundled digits model."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from holistic_cam_plugin.classifiers.models import Classifier, demo_classifier, load_classifier

__all__ = ["DIGITS", "load_model", "target_layers"]

DIGITS = "digits"


def load_model(arguments: argparse.Namespace) -> Classifier:
    """The classifier that `--model`, `--weights` and `--device` name, in evaluation mode on its device.

    Raises:
        UsageError: a model, weights or a device that can't be used.
    """
    if arguments.model == DIGITS:
        classifier = demo_classifier(arguments.device)
    else:
        classifier = load_classifier(arguments.model, arguments.weights, None, arguments.device)
    # Channels last in memory: twice as fast for convolutions on a CPU (SqueezeNet: 15 instead of 28 ms an image).
    classifier.model.to(memory_format=torch.channels_last)
    preprocessing = classifier.preprocessing._replace(**_described(arguments))
    if arguments.squash:  # the whole picture, its aspect not kept
        preprocessing = preprocessing._replace(resize=preprocessing.size)
    return classifier._replace(found=classifier.found._replace(preprocessing=preprocessing))


def target_layers(classifier: Classifier, names: list[str] | None) -> list[str]:
    """The named layers in the order in which they finish; None: the last layer of each of the model's last stages.

    Raises:
        UsageError: no such layer.
    """
    if names is None:
        return classifier.stages
    classifier.found.at(names)
    return [layer.name for layer in classifier.found.maps if layer.name in names]


def _described(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the model's input."""
    described: dict[str, Any] = {}
    if arguments.size is not None:
        described = {"size": (arguments.size, arguments.size), "resize": arguments.resize or arguments.size}
    elif arguments.resize is not None:
        described = {"resize": arguments.resize}
    for name in ("mean", "std"):
        if (values := getattr(arguments, name)) is not None:
            described[name] = tuple(values)
    return described
