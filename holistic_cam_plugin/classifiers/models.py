"""Models by name: torchvision's classifiers, with their own weights or a local state dict, and the bundled one."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from holistic_cam_plugin.demo import CLASSES, SCENE_MEAN, SCENE_SIZE, SCENE_STD, load_demo_model
from holistic_cam_plugin.errors import UsageError, check_file, near_matches

__all__ = ["Classifier", "chosen_device", "demo_classifier", "load_classifier", "read_state_dict"]

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
    entries = torchvision.models.get_model_weights(name)
    entry = entries.DEFAULT if weights is None else next(iter(entries))
    classes = list(entry.meta["categories"])
    if weights is not None:
        state = read_state_dict(weights)
        model = _fitted(name, state, weights)
        outputs = _outputs(state)
        if outputs != len(classes):
            classes = [f"class {index}" for index in range(outputs)]
    elif untrained:
        model = torchvision.models.get_model(name, weights=None, **_quiet(name))
    else:
        model = _pretrained(name)
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
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"the device {name!r} can't be used: {error}") from error
    return device


def _pretrained(name: str) -> nn.Module:
    try:
        model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT")
    except (URLError, OSError) as error:
        raise UsageError(
            f"the weights of {name} are not on this machine and can't be downloaded ({error}): give a local state dict "
            "with --weights FILE, or run the bundled demo with no arguments"
        ) from error
    return model


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict, also out of a checkpoint, read without running code; UsageError if the file holds none."""
    check_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} does not load as tensors alone, and loading anything else could run code: refused. Save the "
            "weights with torch.save(model.state_dict(), FILE)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UsageError(f"{path} is no file that torch.load reads: {error}") from error
    for key in ("state_dict", "model", "model_state_dict"):  # what training scripts put around it
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path} holds no state dict, but a {type(state).__name__}")
    state = dict(state)
    for prefix in ("module.", "_orig_mod."):
        consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _outputs(state: Mapping[str, Tensor]) -> int:
    """Number of classes: the size of the last tensor, the head's bias in all of torchvision's classifiers."""
    last = list(state.values())[-1]
    return last.shape[0] if last.ndim else 0


def _quiet(name: str) -> dict[str, bool]:
    # Without weights these two warn about their slow initialisation.
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _empty(name: str, classes: int) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=max(1, classes), **_quiet(name))
    return model


def _misfit(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What does not fit, in words; empty if all does."""
    own = model.state_dict()
    wrong = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    found = {"missing": own.keys() - state.keys(), "unexpected": state.keys() - own.keys(), "of another shape": wrong}
    return ", ".join(
        f"{len(v)} tensors {k} ({sorted(v)[0]}{', ...' if len(v) > 1 else ''})" for k, v in found.items() if v
    )


def _fitted(name: str, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    model = _empty(name, _outputs(state))
    if misfit := _misfit(model, state):
        family = re.match(r"[a-z]+", name)
        fits = []
        for other in torchvision.models.list_models(module=torchvision.models):
            if other != name and family and other.startswith(family.group()):
                with torch.device("meta"):
                    if not _misfit(_empty(other, _outputs(state)), state):
                        fits.append(other)
        hint = f"; it fits --model {' or '.join(fits)}" if fits else ""
        raise UsageError(f"{path} does not fit {name}: {misfit}{hint}")
    model.load_state_dict(state)
    return model


def _labels(path: Path, count: int) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
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
