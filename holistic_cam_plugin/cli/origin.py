"""How a figure was made: in its foot, and in the metadata of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holistic_cam_plugin import __version__
from holistic_cam_plugin.batch.parameters import read_package_versions
from holistic_cam_plugin.cli.task import Task
from holistic_cam_plugin.methods import has_pyramid
from holistic_cam_plugin.models.weights import hash_weights
from holistic_cam_plugin.names import FAST

__all__ = ["compose_foot", "describe_task", "list_metadata"]

# The fields that Matplotlib takes for each format: of the title, the program and the parameters.
_FIELDS = {
    "png": ("Title", "Software", "Description"),
    "pdf": ("Title", "Creator", "Subject"),
    "svg": ("Title", "Creator", "Description"),
}
_DIGITS = 12  # of a checksum
_PACKAGES = ("holistic-cam-plugin", "grad-cam", "torch")  # in the foot


def describe_task(task: Task) -> dict[str, Any]:
    """What the maps of a model depend on, for JSON."""
    request, arguments = task.request, task.arguments
    classifier = request.classifier
    described = {
        "model": classifier.name,
        "weights": hash_weights(classifier.model),
        "preprocessing": classifier.preprocessing.to_json(),
        "layers": list(request.layers),
        "methods": [method.key for method in request.methods],
        "aug_smooth": arguments.aug_smooth,
        "eigen_smooth": arguments.eigen_smooth,
        "versions": read_package_versions(classifier.name),
    }
    if any(has_pyramid(method.key) for method in request.methods):
        described |= {"sizes": arguments.sizes or FAST, "amp": arguments.amp}
    return described


def compose_foot(described: Sequence[Mapping[str, Any]]) -> str:
    """The text below a figure: models, weights, layers, sizes and versions."""
    versions = described[0]["versions"]
    return "; ".join([*map(_describe_model, described), ", ".join(f"{name} {versions[name]}" for name in _PACKAGES)])


def _describe_model(described: Mapping[str, Any]) -> str:
    sizes = described.get("sizes", "")
    listed = sizes if isinstance(sizes, str) else ", ".join(map(str, sizes))
    text = f"{described['model']}, weights {described['weights'][:_DIGITS]}, layers {', '.join(described['layers'])}"
    return f"{text}, sizes {listed}" if listed else text


def list_metadata(name: str, described: Sequence[Mapping[str, Any]], file_format: str) -> dict[str, str]:
    """The metadata of a figure's file: the image's name, the program, and the parameters of each model as JSON."""
    text = json.dumps({"image": name, "models": described})
    return dict(zip(_FIELDS[file_format], (name, f"holistic-cam {__version__}", text), strict=True))
