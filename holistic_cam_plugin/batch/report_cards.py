"""What a report shows of one image: its picture, and a table of maps for each class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.batch.loading import JobImages, quiet_decoders
from holistic_cam_plugin.batch.overlays import jpeg_bytes
from holistic_cam_plugin.batch.report_pictures import Address, map_png
from holistic_cam_plugin.classifiers.preprocessing import Preprocessing
from holistic_cam_plugin.display import coverage, percent

__all__ = ["Card", "Cards", "MapShown", "Target", "by_depth"]

# Pixels of a picture for each of the model's input, both ways: sharp on screens with two pixels for one of CSS.
DENSITY = 2

_NUMBER = re.compile(r"(\d+)")

Rows = Sequence[Mapping[str, str]]
Key = tuple[str, str, str]  # method, layer, target
Map = NDArray[np.floating]


class MapShown(NamedTuple):
    """One map."""

    address: str  # where the page finds it
    about: str


class Target(NamedTuple):
    """One explained class of an image."""

    name: str
    probability: float
    score: float
    predicted: bool
    layers: list[tuple[str, list[tuple[str, MapShown | None]]]]  # each with its methods; None: missing or damaged


class Card(NamedTuple):
    """One image."""

    file: str
    picture: str  # where the page finds it; empty if it can't be read any more
    width: int  # of the maps, in pixels
    height: int
    seconds: dict[str, float]  # of each method
    targets: list[Target]


class Cards(NamedTuple):
    """Makes cards of the manifest's rows."""

    folder: Path  # the output
    root: Path  # of the images
    preprocessing: Preprocessing  # of the model
    crop: bool
    colormap: str
    address: Address

    def card(self, rows: Rows) -> Card:
        """The card of an image's rows."""
        first = rows[0]
        maps, pixels = _maps(self.folder / first["map"]), self._pixels(first["file"])
        width, height = self._size(maps, pixels)
        if pixels is not None and np.abs(np.divide(pixels.shape[1::-1], self._density) - (width, height)).max() > 1:
            pixels = None  # by now the file is a picture of another shape
        shown = {key: self._shown(saliency_map) for key, saliency_map in maps.items()}
        return Card(
            first["file"],
            "" if pixels is None else self.address(jpeg_bytes(Image.fromarray(pixels)), "jpeg"),
            width,
            height,
            {row["method"]: float(row["seconds"]) for row in rows},
            [_target(some, shown) for some in _by_target(rows)],
        )

    def _pixels(self, file: str) -> NDArray[np.uint8] | None:
        """What the model saw of the image, `(DENSITY H, DENSITY W, 3)`; None if it can't be read any more."""
        with quiet_decoders():
            return JobImages(self.root, [Job(file)], self.preprocessing.enlarged(DENSITY), self.crop)[0].pixels

    @property
    def _density(self) -> int:
        """1 for models that see pictures as they are."""
        return self.preprocessing.enlarged(DENSITY).size[0] // self.preprocessing.size[0]

    def _size(self, maps: Mapping[Key, Map], pixels: NDArray[np.uint8] | None) -> tuple[int, int]:
        """Width and height of the maps, or of what they would be."""
        for saliency_map in maps.values():
            return saliency_map.shape[1], saliency_map.shape[0]
        if pixels is None:
            return self.preprocessing.size[1], self.preprocessing.size[0]
        return pixels.shape[1] // self._density, pixels.shape[0] // self._density

    def _shown(self, saliency_map: Map) -> MapShown:
        about = f"{percent(coverage(saliency_map))} of the picture at a fifth of the peak or above"
        return MapShown(self.address(map_png(saliency_map, self.colormap), "png"), about)


def by_depth(layers: Iterable[str]) -> list[str]:
    """Layers from shallow to deep, as far as their names tell: models count their parts upwards."""
    return sorted(
        set(layers), key=lambda name: [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]
    )


def _by_target(rows: Rows) -> list[Rows]:
    return [[row for row in rows if row["target"] == target] for target in dict.fromkeys(row["target"] for row in rows)]


def _target(rows: Rows, shown: Mapping[Key, MapShown]) -> Target:
    first = rows[0]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    layers = [
        (layer, [(method, shown.get((method, layer, first["target"]))) for method in methods])
        for layer in by_depth(row["layer"] for row in rows)
    ]
    predicted = first["target"] == first["predicted"]
    return Target(first["class"], float(first["probability"]), float(first["score"]), predicted, layers)


def _maps(path: Path) -> dict[Key, Map]:
    """An archive's maps `(H, W)`; none if the file is missing or damaged."""
    try:
        with np.load(path) as file:
            maps = np.nan_to_num(file["maps"]).clip(0, 1)
            names = [file[axis].tolist() for axis in ("methods", "layers", "targets")]
            return {
                (names[0][m], names[1][n], str(names[2][t])): maps[m, n, t] for m, n, t in np.ndindex(maps.shape[:3])
            }
    except Exception:  # a damaged archive raises whatever it leads to; the page says that its maps are missing
        return {}
