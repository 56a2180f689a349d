"""Where models come from, by the form of their name: torchvision, timm, transformers, or a function of the user's own.

    resnet50                    torchvision
    timm/convnext_tiny          timm; timm/hf-hub:OWNER/NAME and timm/local-dir:FOLDER, too
    hf/google/vit-base-...      a transformers classifier of the Hugging Face Hub; hf/./FOLDER, one on this machine
    package.module:function     what it returns when it is called

Nobody's code is run but that of installed packages and of a module that the user names: weights are safetensors, or
pickles that load with `weights_only=True`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from holistic_cam_plugin.classifiers.fitting import architecture, check_finite, class_count, filled, fitted
from holistic_cam_plugin.classifiers.preprocessing import stored_processor
from holistic_cam_plugin.classifiers.weights import read_state_dict
from holistic_cam_plugin.errors import UsageError, near_matches, reason

__all__ = ["Built", "built"]

_TIMM, _HUGGING_FACE = "timm/", "hf/"
_FOLDERS = (".", "/", "~")  # with which the name of a folder begins
_LOCAL = ": give a local state dict with --weights FILE, or run the bundled demo with no arguments"


class Built(NamedTuple):
    """A model, and what its library says of it apart from the model.

    Attributes:
        model: with its weights.
        processor: what `explainable` takes as such.
        size: side in pixels of its images; None: the model tells.
        classes: class names by index; None: the model tells, or nobody does.
    """

    model: nn.Module
    processor: Any = None
    size: int | None = None
    classes: list[str] | None = None


def built(name: str, weights: Path | None, *, untrained: bool = False) -> Built:
    """The model of this name.

    Args:
        weights: a state dict; None: the model's own weights.
        untrained: without weights, and without a download, where the architecture is known without.

    Raises:
        UsageError: no such model or library, no network, weights that are missing, unsafe or do not fit.
    """
    if name.startswith(_TIMM):
        return _of_timm(name.removeprefix(_TIMM), weights, untrained)
    if name.startswith(_HUGGING_FACE):
        return _of_transformers(name.removeprefix(_HUGGING_FACE), weights)
    if ":" in name:
        return _of_function(name, weights)
    return _of_torchvision(name, weights, untrained)


def _of_torchvision(name: str, weights: Path | None, untrained: bool) -> Built:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UsageError(
            f"torchvision has no classifier called {name!r}{near_matches(name, known)} "
            "(others are timm/NAME, hf/NAME or hf/./FOLDER, and package.module:function)"
        )
    entry = torchvision.models.get_model_weights(name).DEFAULT
    count = len(entry.meta["categories"])
    if weights is not None:
        state = read_state_dict(weights)
        count = class_count(state)
        model, entry = fitted(name, state, weights)
    elif untrained:
        model = architecture(name, entry)
    else:
        with _loading(name, _LOCAL):
            model = torchvision.models.get_model(name, weights="DEFAULT")
    preset = entry.transforms()
    classes = list(entry.meta["categories"])
    return Built(model, preset, preset.crop_size[0], classes if count == len(classes) else None)


def _of_timm(name: str, weights: Path | None, untrained: bool) -> Built:
    timm = _library("timm")
    bare = name.partition(".")[0]
    if ":" not in name and not timm.is_model(bare):
        raise UsageError(f"timm has no model called {bare!r}{near_matches(bare, timm.list_models())}")
    if weights is None:
        with _loading(f"{_TIMM}{name}", _LOCAL):
            return Built(timm.create_model(name, pretrained=not untrained))
    state = read_state_dict(weights)
    with _loading(f"{_TIMM}{name}"):
        head = getattr(timm.get_pretrained_cfg(name), "classifier", None)
        bias = f"{head if isinstance(head, str) else (head or [''])[0]}.bias"
        count = class_count({bias: state[bias]} if bias in state else state)
        model = timm.create_model(name, num_classes=max(1, count))
    return Built(_with_weights(model, state, weights, name))


def _of_transformers(name: str, weights: Path | None) -> Built:
    if weights is not None:
        raise UsageError(
            f"--model {_HUGGING_FACE}{name} brings its own weights: leave out --weights. A folder of yours that "
            f"save_pretrained() wrote is --model {_HUGGING_FACE}./FOLDER"
        )
    transformers = _library("transformers")
    local = name.startswith(_FOLDERS)
    place = str(Path(name).expanduser()) if local else name
    if local and not Path(place).is_dir():
        raise UsageError(f"--model {_HUGGING_FACE}{name}: {place} is no folder")
    with _quiet(transformers), _loading(f"{_HUGGING_FACE}{name}"):
        model, told = transformers.AutoModelForImageClassification.from_pretrained(
            place, dtype=torch.float32, output_loading_info=True, local_files_only=local
        )
        processor = stored_processor(place, download=not local)
    if lacking := sorted(map(str, told["missing_keys"] or told["mismatched_keys"])):
        raise UsageError(
            f"{_HUGGING_FACE}{name} is no trained classifier: its files have no values for {', '.join(lacking[:3])}"
            f"{', ...' if len(lacking) > 3 else ''}"
        )
    return Built(model, processor)


def _of_function(name: str, weights: Path | None) -> Built:
    """What the user's function returns: a module, or a module and what `explainable` takes as its processor."""
    module, _, function = name.partition(":")
    try:
        with _current_folder():
            returned = getattr(import_module(module), function)()
    except Exception as error:  # the user's own code
        raise UsageError(f"--model {name}: {type(error).__name__}: {reason(error)}") from error
    model, processor = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {name} returned a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        model = _with_weights(model, read_state_dict(weights), weights, name)
    return Built(model, processor)


def _with_weights(model: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> nn.Module:
    if misfit := filled(model, state):
        raise UsageError(f"{path} does not fit {name}: {misfit}")
    check_finite(model, path)
    return model


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"this model needs {name}: pip install {name} ({reason(error)})") from error


@contextmanager
def _loading(name: str, hint: str = "") -> Iterator[None]:
    """Whatever a library raises, in one line."""
    try:
        yield
    except UnpicklingError as error:
        raise UsageError(f"the weights of {name} could run code when they are loaded: refused") from error
    except Exception as error:  # no network, no such name, a damaged file: libraries have types of their own for each
        raise UsageError(f"{name} can't be loaded ({reason(error)}){hint}") from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the report and the bar of loading: what is missing is raised."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


@contextmanager
def _current_folder() -> Iterator[None]:
    """The user's modules are found from where the command is run, as by `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
