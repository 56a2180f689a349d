"""The Python script that computes one of the page's maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytorch_grad_cam

from holistic_cam_plugin.class_holistic_cam import ClassHolisticCAM
from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.methods import METHODS, Method
from holistic_cam_plugin.models.classifier import Classifier, load_classifier
from holistic_cam_plugin.names import DIGITS

__all__ = ["PHOTO", "Source", "write_snippet"]

PHOTO = "photo.jpg"
_NEEDED: dict[type, str] = {ClassHolisticCAM: ", **found.options", HolisticCAM: ", **needed"}


class Source(NamedTuple):
    """The arguments of `load_classifier`, its texts last, and whether Holistic-CAM's model runs in bfloat16."""

    model: str = DIGITS
    weights: Path | None = None
    labels: Path | None = None
    device: str | None = None
    amp: bool = False
    text: Sequence[str] | None = None

    def load(self) -> Classifier:
        """Load the classifier; raises UsageError if that fails."""
        return load_classifier(*self[:4], text=self.text)


def write_snippet(source: Source, method: Method, layer: str, target: int, name: str) -> str:
    """A script that computes `saliency_map`, the map `(H, W)` of `PHOTO`.

    Args:
        name: of the target.
    """
    cam = METHODS[method.key]
    files = ", ".join("None" if path is None else f"Path({_quote(path)})" for path in (source.weights, source.labels))
    text = f", text=[{', '.join(map(_quote, source.text))}]" if source.text else ""
    needed = _NEEDED.get(cam, ", found.reshape_transform")
    options = "".join(
        f", {key}={_quote(value) if isinstance(value, str) else value}" for key, value in method.options.items()
    )
    lines = [
        "from pathlib import Path",
        "",
        _import(cam),
        "from holistic_cam_plugin.models.classifier import load_classifier",
        "from holistic_cam_plugin.models.images import preprocess_image, read_image",
        "from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget",
        "",
        f"classifier = load_classifier({_quote(source.model)}, {files}, {_quote(source.device)}{text})",
        f"images = preprocess_image(read_image(Path({_quote(PHOTO)})), classifier)",
        f"found = classifier.at([{_quote(layer)}])",
        *(['needed = found.options | {"mask_layer": None}  # the paper\'s mask'] if cam is HolisticCAM else []),
        f"cam = {cam.__name__}(found.model, found.target_layers{needed}{options})",
        f"saliency_map = cam(images, [ClassifierOutputTarget({target})])[0]  # {name}",
    ]
    return "\n".join(lines) + "\n"


def _import(cam: type) -> str:
    if cam in _NEEDED:
        return f"from holistic_cam_plugin import {cam.__name__}"
    module = "pytorch_grad_cam" if getattr(pytorch_grad_cam, cam.__name__, None) is cam else cam.__module__
    return f"from {module} import {cam.__name__}"


def _quote(text: object) -> str:
    """A Python string in double quotes, or None."""
    return "None" if text is None else json.dumps(str(text), ensure_ascii=False)
