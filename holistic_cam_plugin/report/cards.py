"""What a report shows of one image, as rows of the page's data: the image, and each of its maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.outputs import encode_jpeg
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import average_precision, energy_pointing_game
from holistic_cam_plugin.models.images import check_proportions
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.report.objects import Picture, draw_outline, find_mask, read_boxes, read_mask, read_picture
from holistic_cam_plugin.report.pictures import AddPicture, encode_map
from holistic_cam_plugin.report.results import MapRow, Result

__all__ = ["Card", "CardBuilder", "MapPicture", "sort_layers"]

# Pixels of the shown image per pixel of the model's input, in both directions: sharp on high-density screens.
DENSITY = 2

_NUMBER = re.compile(r"(\d+)")

Key = tuple[str, str, int]  # method, layer, target
Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


class MapPicture(NamedTuple):
    """One map on the page; `url` is empty if it is missing or damaged."""

    method: str
    layer: str
    target: int
    name: str  # of the target
    score: float
    probability: float
    coverage: float
    seconds: float
    url: str
    precision: float | None  # average precision; None where the object is not known
    inside: float | None  # share of the energy inside the object


class Card(NamedTuple):
    """One image; None is what is not known."""

    file: str
    url: str  # of the image; empty if it is missing or has changed
    width: int  # of the maps, in pixels
    height: int
    label: int | None
    predicted: int | None
    probability: float | None
    label_probability: float | None
    outline: str  # of the object; empty if it is not known
    object_share: float | None  # of the image's pixels
    problem: str  # why the object is not known although there is a mask or a box
    maps: list[MapPicture]


class CardBuilder(NamedTuple):
    """Builds cards from rows of the records."""

    root: Path | None  # of the images; None: where they were
    masks: Path | None  # a folder of masks
    preprocessing: Preprocessing  # of the model
    crop: bool
    colormap: str
    add_picture: AddPicture

    def build(self, image: Result, rows: Sequence[MapRow]) -> Card:
        """Build the card of an image from its row and those of its maps."""
        maps = _read_maps(image.folder / "maps" / f"{image.file}.npz")
        height, width = next((m.shape for m in maps.values()), (image.height or 1, image.width or 1))
        path = (self.root or image.root) / image.file
        picture = self._read_picture(path, image)
        view = None if picture is None else self._crop_view(picture.pixels)
        if view is not None and np.abs(np.divide(view.size, self._density) - (width, height)).max() > 1:
            view = picture = None  # the file has been replaced by an image of another shape
        mask, problem = (None, "") if picture is None else self._find_object(image, picture, (height, width))
        measured = {} if mask is None else _measure(maps, mask)
        urls = {key: self.add_picture(encode_map(m, self.colormap), "png") for key, m in maps.items()}
        return Card(
            image.file,
            "" if view is None else self.add_picture(encode_jpeg(view), "jpeg"),
            width,
            height,
            image.label,
            image.predicted,
            image.probability,
            image.label_probability,
            "" if mask is None else draw_outline(mask),
            None if mask is None else float(mask.mean()),
            problem,
            [MapPicture(*row, urls.get(row[:3], ""), *measured.get(row[:3], (None, None))) for row in rows],
        )

    def _read_picture(self, path: Path, image: Result) -> Picture | None:
        """Read the upright image; None if it is missing or is not the file that was explained."""
        try:
            status = path.stat()
            # Copies have another time.
            if status.st_size != image.bytes or (self.root is None and status.st_mtime_ns != image.modified):
                return None
            picture = read_picture(path)
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

    def _find_object(self, image: Result, picture: Picture, shape: tuple[int, int]) -> tuple[Mask | None, str]:
        """Return the object's pixels, or None with the reason, which is empty if there is neither mask nor box."""
        file = find_mask(self.masks, image.file) if self.masks else None
        if file is None and image.mask:
            file = (self.root or image.root) / image.mask
        try:
            if file is not None:
                mask = read_mask(file, picture, self.preprocessing, self.crop)
            elif image.boxes:
                mask = read_boxes(image.boxes, picture, self.preprocessing, self.crop)
            else:
                return None, ""
        except UsageError as error:
            return None, str(error)
        if mask.shape != shape:
            return None, f"the object's mask has {mask.shape} pixels, the maps have {shape}"
        if not mask.any():
            return None, "the object is outside the part of the image that the model sees"
        return mask, ""


def sort_layers(layers: Iterable[str]) -> list[str]:
    """Sort layers from shallow to deep, judging by the numbers in their names."""
    return sorted(
        set(layers), key=lambda name: [int(part) if part.isdecimal() else part for part in _NUMBER.split(name)]
    )


def _measure(maps: Mapping[Key, Map], mask: Mask) -> dict[Key, tuple[float | None, float]]:
    """Return each map's average precision and share of the energy inside the object."""
    stacked = np.stack(list(maps.values())).astype(np.float32)
    regions = [mask] * len(maps)
    inside = energy_pointing_game(stacked, regions).tolist()
    # Any order of the pixels is right if the object is everywhere.
    precision = [None] * len(maps) if mask.all() else average_precision(stacked, regions).tolist()
    return dict(zip(maps, zip(precision, inside, strict=True), strict=True))


def _read_maps(path: Path) -> dict[Key, Map]:
    """Read an archive's maps `(H, W)`; empty if the file is missing or damaged."""
    try:
        with np.load(path) as file:
            maps = np.nan_to_num(file["maps"]).clip(0, 1)
            methods, layers, targets = (file[axis].tolist() for axis in ("methods", "layers", "targets"))
            return {(methods[m], layers[n], int(targets[t])): maps[m, n, t] for m, n, t in np.ndindex(maps.shape[:3])}
    except Exception:  # damaged archives raise errors of any type; the page says that the maps are missing
        return {}
