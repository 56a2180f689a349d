"""The models of each library, and how they are built with random weights.

timm has one model per module, the one with the fewest parameters. Of transformers, every class that classifies images
is built from its default config, with fewer layers. torchvision's models are all built as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from benchmarks.zoo.oracle import make_pictures

__all__ = ["LIBRARIES", "build_model", "find_smallest", "initial_statistics", "list_names", "list_versions"]

LIBRARIES = ("timm", "transformers", "torchvision")

# Where the number of layers is in a config of transformers, and how many are kept.
_LAYERS, _FEW_LAYERS = ("num_hidden_layers", "num_self_attends_per_block"), 4
_STAGES, _FEW_BLOCKS = ("depths", "num_blocks", "layer_depths"), 2
# Options of the classes whose default config is not that of any published model, or is very large.
_CONFIGS: dict[str, dict[str, Any]] = {
    "EfficientNet": {"image_size": 224, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "Perceiver": {"image_size": 224, "num_cross_attention_heads": 1},
    "ShieldGemma2": {"text_config": {"model_type": "gemma3_text", "hidden_size": 64, "vocab_size": 1000}},
    "TimmWrapper": {"architecture": "resnet18"},
}
# The smallest model of each module of timm 1.0.31, as found by `find_smallest`, which takes minutes.
_SMALLEST = Path(__file__).with_name("smallest.csv")
# The variance that random weights give may be below the usual 1e-5, so that nothing would be normalised.
_EPS = 1e-12
_SIDE = 224
_CLASSES = 10


def list_names(library: str) -> list[str]:
    """List the modules of timm, the classes of transformers, or the models of torchvision."""
    if library == "timm":
        return list(import_module("timm").list_modules())
    if library == "torchvision":
        return list(torchvision.models.list_models())
    auto: Any = import_module("transformers.models.auto.modeling_auto")
    names = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    return [name for some in names for name in ([some] if isinstance(some, str) else some)]


def list_versions(library: str) -> dict[str, str]:
    """List the versions that the results depend on."""
    return {name: version(name) for name in dict.fromkeys(("torch", "torchvision", library))}


def build_model(library: str, name: str) -> tuple[str, nn.Module]:
    """Build a model with random weights, in evaluation mode; returns its own name, too.

    Weights that start as zeros become noise, as branches and heads would be switched off. Statistics of batch norms are
    those of two pictures: with the initial ones, the activations of deep networks vanish.

    Args:
        name: of `list_names`.
    """
    torch.manual_seed(0)
    build: dict[str, Callable[[str], tuple[str, nn.Module]]] = {
        "timm": _build_timm,
        "transformers": _build_transformers,
        "torchvision": _build_torchvision,
    }
    own, model = build[library](name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim != 1 and parameter.is_floating_point() and not parameter.any():
                parameter.normal_(std=0.02)
    _set_statistics(model.eval())
    return own, model


def _set_statistics(model: nn.Module) -> None:
    """Set the statistics of batch norms to those of two pictures, if the model runs on pictures of its own size."""
    norms = _list_norms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = None  # the mean over all batches
        norm.eps = _EPS
        norm.reset_running_stats()
    with torch.no_grad(), suppress(Exception):  # a model of another kind: the statistics stay as they were
        if norms:
            model(torch.cat(make_pictures(_find_size(model))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


@contextmanager
def initial_statistics(model: nn.Module) -> Iterator[None]:
    """Give batch norms the statistics that they start with, in the body."""
    norms = _list_norms(model)
    states = [{key: value.clone() for key, value in norm.state_dict().items()} for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    try:
        yield
    finally:
        for norm, state in zip(norms, states, strict=True):
            norm.load_state_dict(state)


def _list_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _find_size(model: nn.Module) -> tuple[int, int]:
    for sides in ((getattr(model, "pretrained_cfg", None) or {}).get("input_size"), _read_image_size(model)):
        if isinstance(sides, (tuple, list)):
            return sides[-2], sides[-1]
        if isinstance(sides, int):
            return sides, sides
    return _SIDE, _SIDE


def _read_image_size(model: nn.Module) -> Any:
    return getattr(getattr(model, "config", None), "image_size", None)


def _build_timm(name: str) -> tuple[str, nn.Module]:
    timm: Any = import_module("timm")
    with _SMALLEST.open(newline="", encoding="utf-8") as file:
        known = {row["module"]: row["model"] for row in csv.DictReader(file)}
    own = known.get(name) or find_smallest(name)
    return own, timm.create_model(own)


def find_smallest(module: str) -> str:
    """Find the model of a module of timm that has the fewest parameters."""
    timm: Any = import_module("timm")

    def count_parameters(name: str) -> int:
        with torch.device("meta"):  # without memory
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())

    names: list[str] = timm.list_models(module=module)
    return min(names, key=count_parameters)


def _build_transformers(name: str) -> tuple[str, nn.Module]:
    build: Any = getattr(import_module("transformers"), name)
    options = next((some for prefix, some in _CONFIGS.items() if name.startswith(prefix)), {})
    config = build.config_class(num_labels=_CLASSES, **options)
    for part in _list_configs(config):
        _shrink(part)
    return name, build(config)


def _list_configs(config: Any) -> Iterator[Any]:
    """A config and those inside it."""
    yield config
    for value in vars(config).values():
        if hasattr(value, "to_dict"):
            yield from _list_configs(value)


def _shrink(config: Any) -> None:
    """Keep few layers."""
    for key, value in vars(config).items():
        if key in _LAYERS and isinstance(value, int):
            setattr(config, key, min(value, _FEW_LAYERS))
        if key in _STAGES and isinstance(value, (list, tuple)):
            setattr(config, key, type(value)(min(depth, _FEW_BLOCKS) for depth in value))


def _build_torchvision(name: str) -> tuple[str, nn.Module]:
    library: Any = torchvision.models
    detection, segmentation = (library.list_models(module=m) for m in (library.detection, library.segmentation))
    options: dict[str, Any] = {}
    if name in (*detection, *segmentation):
        options["weights_backbone"] = None  # otherwise it is downloaded
    if name in detection:  # with random weights, no box has a score
        options["box_score_thresh" if "rcnn" in name else "score_thresh"] = 0.0
    return name, library.get_model(name, weights=None, **options)
