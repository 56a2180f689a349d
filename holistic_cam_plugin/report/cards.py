"""What a report shows of one image: the image, and each of its maps."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.outputs import map_name
from holistic_cam_plugin.display.sheets import encode_jpeg
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import average_precision, energy_pointing_game
from holistic_cam_plugin.models.images import check_proportions
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.report.objects import Upright, draw_outline, find_mask, read_boxes, read_mask, read_upright
from holistic_cam_plugin.report.pictures import AddPicture, encode_map
from holistic_cam_plugin.report.results import Source

__all__ = ["COLUMNS", "MAP_COLUMNS", "CardBuilder", "sort_layers"]

# Pixels of the shown image per pixel of the model's input, in both directions: sharp on high-density screens.
DENSITY = 2

# The values of a card and of its maps; the first ones are the record's. None is what is not known, an empty `url` what
# is missing; `outline` is that of the object, `object_share` of the image's pixels, `problem` why it is not known.
_RECORDED = ("file", "label", "predicted", "probability", "label_probability")
COLUMNS = (*_RECORDED, "url", "width", "height", "outline", "object_share", "problem", "maps")
_MAPS_RECORDED = ("method", "layer", "target", "score", "probability", "coverage", "seconds")
MAP_COLUMNS = (*_MAPS_RECORDED, "url", "precision", "inside")  # average precision, energy inside the object

_NUMBER = re.compile(r"(\d+)")
_QUERY = f"SELECT {', '.join(_MAPS_RECORDED)} FROM maps WHERE file = ? ORDER BY place"

Key = tuple[str, str, int]  # method, layer, target
Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


class CardBuilder(NamedTuple):
    """Builds cards from rows of the records."""

    sources: Sequence[Source]
    moved: bool  # whether the images have been moved or copied since
    masks: Path | None  # a folder of masks
    preprocessing: Preprocessing  # of the model
    crop: bool
    colormap: str
    add_picture: AddPicture

    def build(self, image: sqlite3.Row) -> list[Any]:
        """Return the values of an image's card, in the order of `COLUMNS`; its maps are lists like `MAP_COLUMNS`."""
        folder, root, record = self.sources[image["source"]]
        maps = _read_maps(folder / map_name(image["file"]))
        height, width = next((m.shape for m in maps.values()), (image["height"], image["width"]))
        picture = self._read_picture(root, image)
        view = None if picture is None else self._crop_view(picture.pixels)
        if view is not None and np.abs(np.divide(view.size, self._density) - (width, height)).max() > 1:
            view = picture = None  # the file has been replaced by an image of another shape
        mask, problem = (None, "") if picture is None else self._find_object(root, image, picture, (height, width))
        measured = {} if mask is None else _measure(maps, mask)
        urls = {key: self.add_picture(encode_map(m, self.colormap), "png") for key, m in maps.items()}
        return [
            *(image[column] for column in _RECORDED),
            "" if view is None else self.add_picture(encode_jpeg(view), "jpeg"),
            width,
            height,
            "" if mask is None else draw_outline(mask),
            None if mask is None else float(mask.mean()),
            problem,
            [
                [*row, urls.get(row[:3], ""), *measured.get(row[:3], (None, None))]
                for row in map(tuple, record.connection.execute(_QUERY, (image["file"],)).fetchall())
            ],
        ]

    def _read_picture(self, root: Path, image: sqlite3.Row) -> Upright | None:
        """Read the upright image; None if it is missing or is not the file that was explained."""
        try:
            status = (root / image["file"]).stat()
            if status.st_size != image["bytes"] or not (self.moved or status.st_mtime_ns == image["modified"]):
                return None
            picture = read_upright(root / image["file"])
            check_proportions(picture.pixels.size, self.preprocessing)
        except (OSError, UsageError):
            return None
        return picture

    def _crop_view(self, pixels: Image.Image) -> Image.Image:
        """Return the image as the model saw it, in `_density` as many pixels per side."""
        return Image.fromarray(self.preprocessing.enlarge(DENSITY).to_pixels(pixels, crop=self.crop))

    @property
    def _density(self) -> int:
        """`DENSITY`, or 1 for models that do not resize images."""
        return self.preprocessing.enlarge(DENSITY).size[0] // self.preprocessing.size[0]

    def _find_object(
        self, root: Path, image: sqlite3.Row, picture: Upright, shape: tuple[int, int]
    ) -> tuple[Mask | None, str]:
        """Return the object's pixels, or None with the reason, which is empty if there is neither mask nor box."""
        file = find_mask(self.masks, image["file"]) if self.masks else None
        if file is None and image["mask"]:
            file = root / image["mask"]
            if not file.is_file():
                return None, f"the mask {image['mask']} does not exist"
        try:
            if file is not None:
                mask = read_mask(file, picture, self.preprocessing, self.crop)
            elif image["boxes"]:
                mask = read_boxes(image["boxes"], picture, self.preprocessing, self.crop)
            else:
                return None, ""
        except UsageError as error:
            return None, str(error)
        if mask.shape != shape:
            return None, f"the object's mask has {mask.shape} pixels, the maps have {shape}"
        return (mask, "") if mask.any() else (None, "no part of the object is in what the model sees of the image")


def sort_layers(layers: Iterable[str]) -> list[str]:
    """Sort layers from shallow to deep, judging by the numbers in their names."""
    return sorted(
        set(layers), key=lambda name: [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]
    )


def _measure(maps: Mapping[Key, Map], mask: Mask) -> dict[Key, tuple[float | None, float]]:
    """Return each map's average precision and share of the energy inside the object."""
    stacked, regions = [*maps.values()], [mask] * len(maps)
    if not stacked:
        return {}
    inside = energy_pointing_game(stacked, regions).tolist()
    # Any order of the pixels is right if the object is everywhere.
    precision = [None] * len(maps) if mask.all() else average_precision(stacked, regions).tolist()
    return dict(zip(maps, zip(precision, inside, strict=True), strict=True))


def _read_maps(path: Path) -> dict[Key, Map]:
    """Read an archive's maps `(H, W)`; empty if the file is missing or damaged."""
    try:
        with np.load(path) as file:
            maps = np.nan_to_num(file["maps"].astype(np.float32)).clip(0, 1)
            methods, layers, targets = (file[axis].tolist() for axis in ("methods", "layers", "targets"))
            return {(methods[m], layers[n], targets[t]): maps[m, n, t] for m, n, t in np.ndindex(maps.shape[:3])}
    except Exception:  # damaged archives raise errors of any type; the page says that the maps are missing
        return {}
