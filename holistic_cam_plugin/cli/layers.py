"""`holistic-cam --list-layers`: what can be named with `--layers`."""

from __future__ import annotations

from argparse import Namespace

from holistic_cam_plugin.classifiers.models import load_classifier
from holistic_cam_plugin.cli.printing import tell

__all__ = ["list_layers"]


def list_layers(arguments: Namespace) -> None:
    """Print the layers that return maps, and what each returns, in the order in which they run.

    Raises:
        UsageError: the model can't be loaded.
        OutputError: standard output can't be written.
    """
    untrained = arguments.weights is None
    classifier = load_classifier(
        arguments.model, arguments.weights, arguments.labels, arguments.device, untrained=untrained
    )
    found = classifier.found
    height, width = found.size
    lines = [f"{classifier.name} at {width}x{height} px, takes {_sizes(found.multiple_of)}; * marks the default layers"]
    longest = max((len(layer.name) for layer in found.single), default=0)
    for layer in found.single:
        mark = "*" if layer.name in found.layer_names else " "
        shape = "x".join(map(str, layer.returned.shape[1:]))
        kind = type(layer.returned.module).__name__
        lines.append(f"{mark} {layer.name:{longest}}  {shape:>12}  {', '.join(filter(None, [kind, layer.order]))}")
    tell("\n".join(lines))


def _sizes(multiple_of: int | None) -> str:
    if multiple_of is None:
        return "no other size: larger images are covered by tiles"
    return "any size" if multiple_of == 1 else f"multiples of {multiple_of} px"
