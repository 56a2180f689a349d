"""Names of classes: those that come with a model, and the classes that a user names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn

from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.models.wrappers import is_timm, list_described

__all__ = ["check_class", "find_classes", "read_classes"]


def find_classes(targets: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Find the index of each class, which is given as an index or as a name in upper or lower case.

    A number that is also the name of a class is taken as the name.

    Raises:
        UsageError: a class does not exist, or several classes have the name.
    """
    return [_find_class(target, classes) for target in targets]


def _find_class(target: str, classes: Sequence[str]) -> int:
    if target not in classes and re.fullmatch(r"-?\d{1,9}", target):
        return check_class(int(target), classes)
    found = [index for index, name in enumerate(classes) if name.lower() == target.lower()]
    if not found:
        raise UsageError(f"the model has no class {target!r:.200}{near_matches(target, classes)}")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} classes are called {target!r}: name one by its index, {' or '.join(map(str, found))}"
        )
    return found[0]


def check_class(index: int, classes: Sequence[str]) -> int:
    """Return the index; raise UsageError if there is no such class."""
    if not 0 <= index < len(classes):
        raise UsageError(f"class {index} is out of range: the model has classes 0 to {len(classes) - 1}")
    return index


def read_classes(model: nn.Module, count: int) -> list[str] | None:
    """Read the class names by index that timm or transformers store with the model, or with one inside of a wrapper.

    Args:
        count: number of the model's classes.

    Returns:
        None if there are none, or not as many as classes.
    """
    found = (_read_own_classes(module) for module in list_described(model))
    return next((names for names in found if names is not None and len(names) == count), None)


def _read_own_classes(model: nn.Module) -> list[str] | None:
    """Read the class names from the config of a model of transformers or timm."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if labels:
        names = [str(labels[index]) for index in sorted(labels)]
        return None if names == [f"LABEL_{index}" for index in range(len(names))] else names
    config = getattr(model, "pretrained_cfg", None) or {}
    outputs = getattr(model, "num_classes", None)
    if named := config.get("label_names"):
        return list(named) if len(named) == outputs else None
    if is_timm(model) and outputs == config.get("num_classes"):
        data: Any = import_module("timm.data")
        if subset := data.infer_imagenet_subset(model):
            info = data.ImageNetInfo(subset)
            return [info.index_to_description(index) for index in range(info.num_classes())]
    return None
