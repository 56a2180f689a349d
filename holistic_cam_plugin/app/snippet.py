"""The lines of Python that give one of the page's maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytorch_grad_cam

from holistic_cam_plugin.app.choices import Column
from holistic_cam_plugin.baselines.by_name import METHODS
from holistic_cam_plugin.baselines.perturbation import Perturbation
from holistic_cam_plugin.classifiers.models import Classifier, demo_classifier, load_classifier
from holistic_cam_plugin.holistic_cam import HolisticCAM

__all__ = ["PHOTO", "Source", "snippet"]

PHOTO = "photo.jpg"


class Source(NamedTuple):
    """What the person at the shell named: a model as `load_classifier` takes it, and its files; None: the bundled."""

    model: str | None
    weights: Path | None = None
    labels: Path | None = None
    device: str | None = None
    amp: bool = False  # Holistic-CAM's model in bfloat16

    def load(self) -> Classifier:
        """The classifier; UsageError if it can't be loaded."""
        if self.model is None:
            return demo_classifier(self.device)
        return load_classifier(self.model, self.weights, self.labels, self.device)

    @property
    def code(self) -> tuple[str, str]:
        """The name to import, and the call that loads the classifier."""
        device = _quoted(self.device)
        if self.model is None:
            return "demo_classifier", f"demo_classifier({device})"
        files = ", ".join("None" if path is None else f"Path({_quoted(path)})" for path in (self.weights, self.labels))
        return "load_classifier", f"load_classifier({_quoted(self.model)}, {files}, {device})"


def snippet(source: Source, column: Column, layer: str, target: int, name: str) -> str:
    """A script that leaves the map `(H, W)` of `PHOTO` in `saliency_map`."""
    function, call = source.code
    cam = METHODS[column.method]
    # Methods that only look at outputs take no layer.
    layers = "[]" if issubclass(cam, Perturbation) else "found.target_layers"
    needed = ", **found.options" if cam is HolisticCAM else ", found.reshape_transform"
    options = "".join(
        f", {key}={_quoted(value) if isinstance(value, str) else value}" for key, value in column.options.items()
    )
    lines = [
        "from pathlib import Path",
        "",
        _import(cam),
        "from holistic_cam_plugin.classifiers.images import preprocessed, read_image",
        f"from holistic_cam_plugin.classifiers.models import {function}",
        "from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget",
        "",
        f"classifier = {call}",
        f"images = preprocessed(read_image(Path({_quoted(PHOTO)})), classifier)",
        f"found = classifier.found.at([{_quoted(layer)}])",
        f"cam = {cam.__name__}(found.model, {layers}{needed}{options})",
        f"saliency_map = cam(images, [ClassifierOutputTarget({target})])[0]  # {name}",
    ]
    return "\n".join(lines) + "\n"


def _import(cam: type) -> str:
    if cam is HolisticCAM:
        return "from holistic_cam_plugin import HolisticCAM"
    module = "pytorch_grad_cam" if getattr(pytorch_grad_cam, cam.__name__, None) is cam else cam.__module__
    return f"from {module} import {cam.__name__}"


def _quoted(text: object) -> str:
    """A string of Python in double quotes; None as it is."""
    return "None" if text is None else json.dumps(str(text), ensure_ascii=False)
