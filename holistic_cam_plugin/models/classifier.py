"""Classifiers by name: the model with its weights, layers, preprocessing and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from holistic_cam_plugin.errors import UsageError, describe_error
from holistic_cam_plugin.models.build import BuiltModel, build_model
from holistic_cam_plugin.models.explainable import Explainable, examine
from holistic_cam_plugin.models.image_text import TextLogits, bind_texts, check_texts, is_image_text
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.names import DEFAULT_MODEL

__all__ = ["Classifier", "check_text", "choose_device", "examine_built", "load_classifier"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model with its name, classes and device.

    Attributes:
        name: the name that the user gave.
        classes: class names by index.
        explainable: the model in evaluation mode, in float32, and what `HolisticCAM` needs of it.
        device: the model's device.
        encode: for a model of images and texts: from texts to the model with these classes.
    """

    name: str
    classes: list[str] = field(repr=False)
    explainable: Explainable
    device: torch.device
    encode: Callable[[Sequence[str]], TextLogits] | None = field(default=None, repr=False)

    @property
    def model(self) -> nn.Module:
        """The module that computes logits `(B, classes)`."""
        return self.explainable.model

    @property
    def preprocessing(self) -> Preprocessing:
        """Converts a picture to the model's input."""
        return self.explainable.preprocessing

    @property
    def default_layers(self) -> list[str]:
        """Names of the default target layers: one for each of the last stages, shallow to deep.

        Raises:
            UsageError: no layer explains the model's score.
        """
        if not self.explainable.layer_names:
            raise UsageError(
                f"no layer of {self.name} returns maps that explain its best score: choose some with --layers"
            )
        return self.explainable.layer_names

    def at(self, names: Sequence[str]) -> Explainable:
        """Return `explainable` with the target layers of these names.

        Raises:
            UsageError: a layer does not exist or returns no maps, or no reshape transform fits all layers.
        """
        try:
            return self.explainable.at(names)
        except ValueError as error:
            usual = ", ".join(self.explainable.layer_names)
            raise UsageError(
                f"{error} (the default layers are {usual}; holistic-cam --model {self.name} --list-layers lists all)"
            ) from error

    def with_texts(self, text: Sequence[str]) -> Classifier:
        """Return the same model of images and texts with other texts as classes.

        Raises:
            UsageError: the model takes no texts; there is no text, or one is empty, given twice or too long.
        """
        if self.encode is None:
            raise UsageError(f"{self.name} has classes of its own, and compares images with no texts")
        try:
            model = self.encode(text)
        except (TypeError, ValueError) as error:
            raise UsageError(error) from error
        found = replace(self.explainable, model=model, classes=model.texts, output_shape=(len(model.texts),))
        return replace(self, classes=model.texts, explainable=found)


def load_classifier(
    name: str | None = None,
    weights: Path | None = None,
    labels: Path | Sequence[str] | None = None,
    device: str | None = None,
    *,
    text: Sequence[str] | None = None,
    untrained: bool = False,
) -> Classifier:
    """Load a classifier, in evaluation mode, on its device.

    Args:
        name: `digits`, the bundled model; a classifier of torchvision; `timm/NAME`; `hf/OWNER/NAME`; `hf/./FOLDER`;
            `open_clip/NAME`; `package.module:function`. None: ResNet-50.
        weights: file of a state dict, which is loaded without running code; None for the published weights.
        labels: class names, or a text file of them, one a line; None for the names that come with the model.
        device: such as `cuda:1`; None for a GPU if there is one.
        text: the classes of a model of images and texts.
        untrained: use random weights instead of published ones where this saves a download.

    Raises:
        UsageError: the model or the device does not exist, the download failed, or a file is missing, unsafe or does
            not fit.

    Example:
        >>> classifier = load_classifier("digits", device="cpu")
        >>> classifier.classes[:2], classifier.default_layers
        (['digit 0', 'digit 1'], ['layer1', 'layer2', 'layer3', 'layer4'])
    """
    name = name or DEFAULT_MODEL
    where = choose_device(device)
    if text is not None:
        check_text(text, labels)
    built = build_model(name, weights, untrained=untrained)
    if text is None and is_image_text(built.model):
        raise UsageError(f'{name} compares images with texts: name them, such as --text "a dog" "a cat"')
    if text is not None and not is_image_text(built.model):
        raise UsageError(f"{name} has classes of its own, and compares images with no texts: leave out --text")
    return examine_built(name, built, labels, where, text)


def check_text(text: Sequence[str], labels: object) -> None:
    """Raise UsageError if these texts cannot be the classes of a model."""
    if labels is not None:
        raise UsageError("--labels and --text both name the classes: leave out --labels")
    try:
        check_texts(text)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--text: {error}") from error


def examine_built(
    name: str,
    built: BuiltModel,
    labels: Path | Sequence[str] | None,
    device: torch.device,
    text: Sequence[str] | None = None,
) -> Classifier:
    """Return the classifier of a model, after running it on noise.

    Args:
        labels: class names, or a text file of them, one a line; None for the names that come with the model.

    Raises:
        UsageError: the model is no classifier of pictures, or has another number of classes.
    """
    model = built.model.eval().to(device, torch.float32)
    size = None if built.size is None else (built.size, built.size)
    try:
        found = examine(model, built.processor, size=size, text=text, tokenizer=built.tokenizer)
    except Exception as error:  # a model can raise anything
        raise UsageError(f"{name}: {str(error) or type(error).__name__}") from error
    if len(found.output_shape) != 1:
        shape = ", ".join(map(str, (1, *found.output_shape)))
        raise UsageError(f"{name} returns ({shape}) for one image: a classifier returns (1, classes)")
    if (channels := len(found.preprocessing.mean)) not in (1, 3):
        raise UsageError(f"{name} takes images with {channels} channels: pictures have one or three")
    (count,) = found.output_shape
    known = built.classes or found.classes or []
    classes = known if len(known) == count else [f"class {index}" for index in range(count)]
    encode = partial(_encode, model, built) if text is not None else None
    return Classifier(name, classes if labels is None else _read_labels(labels, count), found, device, encode)


def _encode(model: nn.Module, built: BuiltModel, text: Sequence[str]) -> TextLogits:
    with preserve_model(model):
        return bind_texts(model, text, built.processor, built.tokenizer)


def choose_device(name: str | None) -> torch.device:
    """Return the named device, or by default a GPU if there is one; raise UsageError if it cannot be used."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # raises on the meta device
    except (RuntimeError, AssertionError, ImportError) as error:  # ImportError: a device of another package
        raise UsageError(f"the device {name!r} cannot be used: {describe_error(error)}") from error
    return device


def _read_labels(labels: Path | Sequence[str], count: int) -> list[str]:
    if not isinstance(labels, Path):
        names, source = list(labels), "labels"
    else:
        try:
            names = [line.strip() for line in labels.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the labels file {labels} cannot be read: {error}") from error
        source = str(labels)
    if len(names) != count:
        raise UsageError(f"{source} names {len(names)} classes, but the model has {count}")
    return names
