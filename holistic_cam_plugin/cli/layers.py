"""`holistic-cam --list-layers`: the names that `--layers` takes."""

from __future__ import annotations

from argparse import Namespace

from holistic_cam_plugin.cli.printing import say
from holistic_cam_plugin.models.classifier import Classifier, load_classifier
from holistic_cam_plugin.names import DEFAULT_MODEL

__all__ = ["list_layers"]


def list_layers(arguments: Namespace) -> None:
    """Print the layers that return maps, and their shapes, in the order in which they run; then those that seem to.

    Raises:
        UsageError: a model cannot be loaded.
        OutputError: standard output cannot be written.
    """
    models = arguments.model or [DEFAULT_MODEL]
    for name, weights, labels in zip(models, arguments.weights, arguments.labels, strict=True):
        _list_of_model(
            load_classifier(name, weights, labels, arguments.device, text=arguments.text, untrained=weights is None)
        )


def _list_of_model(classifier: Classifier) -> None:
    found = classifier.explainable
    height, width = found.size
    sizes = _describe_sizes(found.multiple_of)
    lines = [f"{classifier.name} at {width}x{height} px, takes {sizes}; * marks the default layers"]
    longest = max((len(layer.name) for layer in found.maps_called_once), default=0)
    for layer in found.maps_called_once:
        mark = "*" if layer.name in found.layer_names else " "
        shape = "x".join(map(str, layer.shape[1:]))
        kind = type(layer.module).__name__
        lines.append(
            f"{mark} {layer.name:{longest}}  {shape:>12}  {', '.join(filter(None, [kind, layer.layout_text]))}"
        )
    if found.rejected:
        lines.append("Left out, because their output looks like maps of the picture, but is none:")
        lines += [f"  {name}  {reason}" for name, reason in found.rejected.items()]
    say("\n".join(lines))


def _describe_sizes(multiple_of: int | None) -> str:
    if multiple_of is None:
        return "no other size: tiles cover larger images"
    return "any size" if multiple_of == 1 else f"multiples of {multiple_of} px"
