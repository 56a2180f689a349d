"""What a report shows of one image: the image, and a table of maps for each explained class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.loading import load_picture, silence_decoders
from holistic_cam_plugin.batch.overlays import encode_jpeg
from holistic_cam_plugin.display import coverage, format_percent
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.report.pictures import AddPicture, encode_map

__all__ = ["Card", "CardBuilder", "ClassTable", "MapPicture", "sort_layers"]

# Pixels of the shown image per pixel of the model's input, in both directions: sharp on high-density screens.
DENSITY = 2

_NUMBER = re.compile(r"(\d+)")

Rows = Sequence[Mapping[str, str]]  # of the manifest
Key = tuple[str, str, str]  # method, layer, target
Map = NDArray[np.floating]


class MapPicture(NamedTuple):
    """One map on the page."""

    url: str
    caption: str


class ClassTable(NamedTuple):
    """The maps of one explained class of an image."""

    name: str
    probability: float
    score: float
    is_predicted: bool
    layers: list[tuple[str, list[tuple[str, MapPicture | None]]]]  # maps by layer and method; None: missing or damaged


class Card(NamedTuple):
    """One image."""

    file: str
    url: str  # of the image; empty if it cannot be read
    width: int  # of the maps, in pixels
    height: int
    seconds: dict[str, float]  # by method
    classes: list[ClassTable]


class CardBuilder(NamedTuple):
    """Builds cards from rows of the manifest."""

    folder: Path  # the output folder
    root: Path  # of the images
    preprocessing: Preprocessing  # of the model
    crop: bool
    colormap: str
    add_picture: AddPicture

    def build(self, rows: Rows) -> Card:
        """Build the card of an image from its rows."""
        first = rows[0]
        maps, pixels = _read_maps(self.folder / first["map"]), self._read_pixels(first["file"])
        width, height = self._find_size(maps, pixels)
        if pixels is not None and np.abs(np.divide(pixels.shape[1::-1], self._density) - (width, height)).max() > 1:
            pixels = None  # the file has been replaced by an image of another shape
        pictures = {key: self._add_map(saliency_map) for key, saliency_map in maps.items()}
        return Card(
            first["file"],
            "" if pixels is None else self.add_picture(encode_jpeg(Image.fromarray(pixels)), "jpeg"),
            width,
            height,
            {row["method"]: float(row["seconds"]) for row in rows},
            [_build_table(group, pictures) for group in _group_by_target(rows)],
        )

    def _read_pixels(self, file: str) -> NDArray[np.uint8] | None:
        """Return the image as the model saw it, `(DENSITY H, DENSITY W, 3)`; None if it cannot be read."""
        with silence_decoders():
            return load_picture(self.root / file, self.preprocessing.enlarge(DENSITY), self.crop).pixels

    @property
    def _density(self) -> int:
        """`DENSITY`, or 1 for models that do not resize images."""
        return self.preprocessing.enlarge(DENSITY).size[0] // self.preprocessing.size[0]

    def _find_size(self, maps: Mapping[Key, Map], pixels: NDArray[np.uint8] | None) -> tuple[int, int]:
        """Return the width and height of the maps; if all are missing, those that they should have."""
        for saliency_map in maps.values():
            return saliency_map.shape[1], saliency_map.shape[0]
        if pixels is None:
            return self.preprocessing.size[1], self.preprocessing.size[0]
        return pixels.shape[1] // self._density, pixels.shape[0] // self._density

    def _add_map(self, saliency_map: Map) -> MapPicture:
        caption = f"{format_percent(coverage(saliency_map))} of the image at 20 % of the map's peak or above"
        return MapPicture(self.add_picture(encode_map(saliency_map, self.colormap), "png"), caption)


def sort_layers(layers: Iterable[str]) -> list[str]:
    """Sort layers from shallow to deep, judging by the numbers in their names."""
    return sorted(
        set(layers), key=lambda name: [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]
    )


def _group_by_target(rows: Rows) -> list[Rows]:
    return [[row for row in rows if row["target"] == target] for target in dict.fromkeys(row["target"] for row in rows)]


def _build_table(rows: Rows, pictures: Mapping[Key, MapPicture]) -> ClassTable:
    first = rows[0]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    layers = [
        (layer, [(method, pictures.get((method, layer, first["target"]))) for method in methods])
        for layer in sort_layers(row["layer"] for row in rows)
    ]
    is_predicted = first["target"] == first["predicted"]
    return ClassTable(first["class"], float(first["probability"]), float(first["score"]), is_predicted, layers)


def _read_maps(path: Path) -> dict[Key, Map]:
    """Read an archive's maps `(H, W)`; empty if the file is missing or damaged."""
    try:
        with np.load(path) as file:
            maps = np.nan_to_num(file["maps"]).clip(0, 1)
            methods, layers, targets = (file[axis].tolist() for axis in ("methods", "layers", "targets"))
            return {(methods[m], layers[n], str(targets[t])): maps[m, n, t] for m, n, t in np.ndindex(maps.shape[:3])}
    except Exception:  # damaged archives raise errors of any type; the page says that the maps are missing
        return {}
