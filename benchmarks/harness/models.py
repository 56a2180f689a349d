"""Models under test."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch

from holistic_cam_plugin.models.classifier import Classifier, load_classifier

__all__ = ["find_target_layers", "load_model"]


def load_model(arguments: argparse.Namespace) -> Classifier:
    """Load the classifier that `--model`, `--weights` and `--device` name, in evaluation mode on its device.

    Raises:
        UsageError: the model, weights or device cannot be used.
    """
    classifier = load_classifier(arguments.model, arguments.weights, None, arguments.device)
    # Convolutions on a CPU take about half the time with channels last (SqueezeNet: 15 instead of 28 ms per image).
    classifier.model.to(memory_format=torch.channels_last)
    preprocessing = classifier.preprocessing._replace(**_read_input(arguments))
    if arguments.squash:  # the whole picture, without keeping its aspect ratio
        preprocessing = preprocessing._replace(resize=preprocessing.size)
    return replace(classifier, explainable=replace(classifier.explainable, preprocessing=preprocessing))


def find_target_layers(classifier: Classifier, names: list[str] | None) -> list[str]:
    """Sort the named layers in the order in which they finish; None: the last layer of each of the model's last stages.

    Raises:
        UsageError: no such layer.
    """
    if names is None:
        return classifier.default_layers
    classifier.at(names)
    return [layer.name for layer in classifier.explainable.maps if layer.name in names]


def _read_input(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read the arguments that describe the model's input."""
    described: dict[str, Any] = {}
    if arguments.size is not None:
        described = {"size": (arguments.size, arguments.size), "resize": arguments.resize or arguments.size}
    elif arguments.resize is not None:
        described = {"resize": arguments.resize}
    for name in ("mean", "std"):
        if (values := getattr(arguments, name)) is not None:
            described[name] = tuple(values)
    return described
