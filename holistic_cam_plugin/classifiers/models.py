"""Classifiers by name: the model with its weights, its layers, its preprocessing and its classes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holistic_cam_plugin.classifiers.explainable import Explainable, examined
from holistic_cam_plugin.classifiers.preprocessing import Preprocessing
from holistic_cam_plugin.classifiers.zoo import Built, built
from holistic_cam_plugin.demo import CLASSES, SCENE_MEAN, SCENE_SIZE, SCENE_STD, load_demo_model
from holistic_cam_plugin.errors import UsageError, reason

__all__ = ["Classifier", "chosen_device", "demo_classifier", "load_classifier"]

DEFAULT_MODEL = "resnet50"


class Classifier(NamedTuple):
    """A model and what belongs to it.

    Attributes:
        name: as the user names it.
        classes: class names by index.
        found: what `HolisticCAM` needs of the model, which is in evaluation mode, float32, on the device.
        device: where the model is.
    """

    name: str
    classes: list[str]
    found: Explainable
    device: torch.device

    @property
    def model(self) -> nn.Module:
        """Called on the images, it returns logits `(B, classes)`."""
        return self.found.model

    @property
    def preprocessing(self) -> Preprocessing:
        """From a picture to the model's input."""
        return self.found.preprocessing

    def probabilities(self, images: Tensor) -> Tensor:
        """Of each class for images `(B, C, H, W)` on the device: `(B, classes)`, float32, in [0, 1].

        Raises:
            UsageError: NaN among them: there is nothing to explain.
        """
        with torch.inference_mode():
            probabilities: Tensor = self.model(images).float().softmax(dim=1)
        if not bool(probabilities.isfinite().all()):
            raise UsageError(f"{self.name} answers with NaN: there is nothing to explain")
        return probabilities

    @property
    def stages(self) -> list[str]:
        """The default target layers, one for each of the last stages, shallow to deep.

        Raises:
            UsageError: none explains the model's score.
        """
        if not self.found.layer_names:
            raise UsageError(
                f"no layer of {self.name} returns maps that explain its best score: name some with --layers"
            )
        return self.found.layer_names


def load_classifier(
    name: str | None, weights: Path | None, labels: Path | None, device: str | None, *, untrained: bool = False
) -> Classifier:
    """A classifier in evaluation mode on its device.

    Args:
        name: torchvision's, `timm/NAME`, `hf/OWNER/NAME`, `hf/./FOLDER` or `package.module:function`; None: ResNet-50.
        weights: a state dict, loaded without running any code of the file; None for the model's own weights.
        labels: class names, one a line.
        device: None for a GPU if there is one.
        untrained: the architecture alone, with random weights, where it is known without a download.

    Raises:
        UsageError: unknown model or device, no network, a file that is missing, unsafe or does not fit.
    """
    name = name or DEFAULT_MODEL
    where = chosen_device(device)
    return _classifier(name, built(name, weights, untrained=untrained), labels, where)


def demo_classifier(device: str | None) -> Classifier:
    """The bundled digits model."""
    where = chosen_device(device)
    size = (SCENE_SIZE, SCENE_SIZE)
    preprocessing = Preprocessing(tuple(SCENE_MEAN), tuple(SCENE_STD), size, SCENE_SIZE, "bilinear", "bundled")
    digits = [f"digit {digit}" for digit in range(CLASSES)]
    return _classifier("digits_resnet", Built(load_demo_model(), preprocessing, SCENE_SIZE, digits), None, where)


def _classifier(name: str, given: Built, labels: Path | None, device: torch.device) -> Classifier:
    model = given.model.eval().to(device, torch.float32)
    try:
        found = examined(model, given.processor, size=None if given.size is None else (given.size, given.size))
    except Exception as error:  # models raise whatever they like
        raise UsageError(f"{name}: {str(error) or type(error).__name__}") from error
    if len(found.outputs) != 1:
        shape = ", ".join(map(str, (1, *found.outputs)))
        raise UsageError(f"{name} returns ({shape}) for one image: a classifier returns (1, classes)")
    if (channels := len(found.preprocessing.mean)) not in (1, 3):
        raise UsageError(f"{name} takes images of {channels} channels: pictures have one or three")
    (count,) = found.outputs
    told = given.classes or found.classes or []
    classes = told if len(told) == count else [f"class {index}" for index in range(count)]
    return Classifier(name, classes if labels is None else _labels(labels, count), found, device)


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


def _labels(path: Path, count: int) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the labels file {path} can't be read: {error}") from error
    if len(names) != count:
        raise UsageError(f"{path} names {len(names)} classes, but the model has {count}")
    return names
