"""The images of a batch on their way through a `BatchExplainer`: from a row of the input to a row of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from holistic_cam_plugin.batch.outputs import encode_maps
from holistic_cam_plugin.display import coverage
from holistic_cam_plugin.display.sheets import encode_overlays
from holistic_cam_plugin.explain import Explanation
from holistic_cam_plugin.models.classes import check_class, find_classes
from holistic_cam_plugin.models.pictures import Picture

__all__ = ["OUTPUTS", "Item", "find_targets", "group_by_shape"]

OUTPUTS = (
    "file", "bytes_read", "modified", "error", "predicted", "predicted_name", "probability", "label",
    "label_probability", "height", "width", "archive", "overlay", "maps",
)  # fmt: skip


class Item(NamedTuple):
    """An image on its way through a `BatchExplainer`."""

    row: dict[str, Any]  # its columns of the batch
    picture: Picture
    targets: tuple[int, ...]  # class indices; empty: the predicted class
    label: int | None
    result: Explanation | str  # a string: why it has no maps

    def encode(self, classes: Sequence[str], dtype: str, overlays: bool) -> dict[str, Any]:
        """Return the columns of `OUTPUTS`."""
        row: dict[str, Any] = dict.fromkeys(OUTPUTS) | {"error": "", "archive": b"", "overlay": b"", "maps": []}
        row["file"] = str(self.row.get("file", ""))
        row |= {"bytes_read": self.picture.size, "modified": self.picture.modified, "label": self.label}
        if isinstance(self.result, str):
            return row | {"error": self.result}
        found, pixels = self.result, self.picture.pixels
        assert pixels is not None
        try:
            row["overlay"] = encode_overlays(pixels, np.stack(found.maps)) if overlays else b""
        except ValueError as error:
            return row | {"error": str(error)}
        return row | {
            "predicted": found.predicted,
            "predicted_name": classes[found.predicted],
            "probability": float(found.probabilities[found.predicted]),
            "label_probability": None if self.label is None else float(found.probabilities[self.label]),
            "height": found.maps[0].shape[-2],
            "width": found.maps[0].shape[-1],
            "archive": encode_maps(found, dtype),
            "maps": list(_describe_maps(found, classes)),
        }


def _describe_maps(found: Explanation, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per map, in the order of the array."""
    for method, maps, seconds in zip(found.methods, found.maps, found.seconds, strict=True):
        for of_layer, layer in zip(maps, found.layers, strict=True):
            for saliency_map, target in zip(of_layer, found.targets, strict=True):
                yield {
                    "method": method.key,
                    "layer": layer,
                    "target": target,
                    "class": classes[target],
                    "score": float(found.scores[target]),
                    "probability": float(found.probabilities[target]),
                    "coverage": coverage(saliency_map),
                    "seconds": round(seconds, 4),
                }


def find_targets(value: object, classes: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the classes that a cell names; None, NaN and an empty string name none.

    Numbers are indices, also the floats of tables with gaps. Text is a name, or else an index.
    """
    cells = value if isinstance(value, (list, tuple, np.ndarray)) else [value]
    known = [cell for cell in cells if cell is not None and cell == cell and str(cell).strip()]  # NaN is not itself
    return tuple(dict.fromkeys(_find_target(cell, classes) for cell in known))


def _find_target(cell: object, classes: Sequence[str]) -> int:
    if isinstance(cell, (int, float, np.integer, np.floating)) and float(cell).is_integer():
        return check_class(int(cell), classes)
    return find_classes([str(cell).strip()], classes)[0]


def group_by_shape(items: Sequence[Item]) -> list[list[int]]:
    """Group the indices of the pictures by the shape of their pixels."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, item in enumerate(items):
        if item.picture.pixels is not None:
            groups.setdefault(item.picture.pixels.shape, []).append(index)
    return list(groups.values())
