"""Models under test: torchvision's, the bundled digits model, or any function that returns a module."""

from __future__ import annotations

import argparse
import importlib

import torch
from torch import nn

from holistic_cam_plugin.classifiers.layers import find_layers, probe_layers, stage_layers
from holistic_cam_plugin.classifiers.models import Classifier, chosen_device, demo_classifier, load_classifier
from holistic_cam_plugin.classifiers.weights import read_state_dict
from holistic_cam_plugin.errors import UsageError

__all__ = ["DIGITS", "SQUASHED", "load_model", "target_layers"]

DIGITS = "digits"
SQUASHED = 0  # in the place of `Classifier.resize`: both sides to the model's size, nothing is cut off


def load_model(arguments: argparse.Namespace) -> Classifier:
    """The classifier that `--model`, `--weights` and `--device` name, in evaluation mode on its device.

    Raises:
        UsageError: a model, weights or a device that can't be used.
    """
    if arguments.model == DIGITS:
        classifier = demo_classifier(arguments.device)
    elif ":" in arguments.model:
        classifier = _imported(arguments)
    else:
        classifier = load_classifier(arguments.model, arguments.weights, None, arguments.device)
    # Channels last in memory: twice as fast for convolutions on a CPU (SqueezeNet: 15 instead of 28 ms an image).
    classifier.model.to(memory_format=torch.channels_last)
    return classifier._replace(resize=SQUASHED) if arguments.squash else classifier


def target_layers(classifier: Classifier, names: list[str] | None) -> list[str]:
    """The named layers, shallow to deep; None: the last layer of each of the model's last stages.

    Shallow to deep is the order in which the model registers them.

    Raises:
        UsageError: no such layer.
    """
    if names is None:
        infos = probe_layers(classifier.model, classifier.size, classifier.mean.device)
        return stage_layers(infos, classifier.size, len(classifier.classes))
    find_layers(classifier.model, names)
    return [name for name, _ in classifier.model.named_modules() if name in names]


def _imported(arguments: argparse.Namespace) -> Classifier:
    """The module that `package.module:function` returns, with the input that the command line describes."""
    module, _, function = arguments.model.partition(":")
    try:
        model = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model {arguments.model}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {arguments.model} returned a {type(model).__name__}, not a torch.nn.Module")
    if arguments.weights is not None:
        try:
            model.load_state_dict(read_state_dict(arguments.weights))
        except RuntimeError as error:
            raise UsageError(f"--weights {arguments.weights}: {error}") from error
    device = chosen_device(arguments.device)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (arguments.mean, arguments.std))
    size, resize = arguments.size, arguments.resize or arguments.size
    return Classifier(arguments.model, model.eval().to(device), [], size, resize, mean, std)
