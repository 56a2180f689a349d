"""Models by name: torchvision's classifiers, with their own weights or a local state dict, and the bundled one."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from holistic_cam_plugin.classifiers.fitting import architecture, class_count, fitted
from holistic_cam_plugin.classifiers.weights import read_state_dict
from holistic_cam_plugin.demo import CLASSES, SCENE_MEAN, SCENE_SIZE, SCENE_STD, load_demo_model
from holistic_cam_plugin.errors import UsageError, near_matches, reason

__all__ = ["Classifier", "chosen_device", "demo_classifier", "load_classifier"]

DEFAULT_MODEL = "resnet50"


class Classifier(NamedTuple):
    """A model and what belongs to it."""

    name: str
    model: nn.Module
    classes: list[str]  # class names by index
    size: int  # side in pixels of the images that it was trained on
    resize: int  # shorter side to which an image is resized before the crop
    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)


def load_classifier(
    name: str | None, weights: Path | None, labels: Path | None, device: str | None, *, untrained: bool = False
) -> Classifier:
    """A torchvision classifier in evaluation mode on its device.

    Args:
        name: torchvision's name, None for ResNet-50.
        weights: a state dict, loaded without running any code of the file; None for torchvision's default weights.
        labels: class names, one a line.
        device: None for a GPU if there is one.
        untrained: the architecture alone, with random weights.

    Raises:
        UsageError: unknown model or device, no network, a file that is missing, unsafe or does not fit.
    """
    name = name or DEFAULT_MODEL
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UsageError(f"torchvision has no classifier called {name!r}{near_matches(name, known)}")
    where = chosen_device(device)
    entry = torchvision.models.get_model_weights(name).DEFAULT
    count = len(entry.meta["categories"])
    if weights is not None:
        state = read_state_dict(weights)
        count = class_count(state)
        model, entry = fitted(name, state, weights)
    else:
        model = architecture(name, entry) if untrained else _pretrained(name)
    classes = list(entry.meta["categories"])
    if count != len(classes):
        classes = [f"class {index}" for index in range(count)]
    if labels is not None:
        classes = _labels(labels, len(classes))
    preset = entry.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    return Classifier(
        name, model.eval().to(where), classes, preset.crop_size[0], preset.resize_size[0], mean.to(where), std.to(where)
    )


def chosen_device(name: str | None) -> torch.device:
    """The named device; None: a GPU if there is one. UsageError if it can't be used."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # on the meta device nothing has a value
    except (RuntimeError, AssertionError, ImportError) as error:  # ImportError: a device of another package
        raise UsageError(f"the device {name!r} can't be used: {reason(error)}") from error
    return device


def _pretrained(name: str) -> nn.Module:
    try:
        model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT")
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the download is not what was asked for
        raise UsageError(
            f"the weights of {name} are not on this machine and can't be downloaded ({reason(error)}): give a local "
            "state dict with --weights FILE, or run the bundled demo with no arguments"
        ) from error
    return model


def _labels(path: Path, count: int) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the labels file {path} can't be read: {error}") from error
    if len(names) != count:
        raise UsageError(f"{path} names {len(names)} classes, but the model has {count}")
    return names


def demo_classifier(device: str | None) -> Classifier:
    """The bundled digits model."""
    where = chosen_device(device)
    mean, std = (torch.tensor(values, device=where).view(3, 1, 1) for values in (SCENE_MEAN, SCENE_STD))
    digits = [f"digit {digit}" for digit in range(CLASSES)]
    return Classifier("digits_resnet", load_demo_model().to(where), digits, SCENE_SIZE, SCENE_SIZE, mean, std)
