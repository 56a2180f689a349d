"""Maps of a photograph that display themselves in a notebook."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.display.panels import Panel, arrange_panels
from holistic_cam_plugin.display.photographs import (
    UNSEEN,
    Box,
    bound_size,
    is_whole,
    overlay_photograph,
    place_map,
    scale_box,
)

__all__ = ["PhotoMaps", "build_photo_rows", "describe_class"]

# Of the picture's sides in pixels: a notebook shows fewer, and stores the picture as text.
_LARGEST = 2048


@dataclass(frozen=True, eq=False, repr=False)
class PhotoMaps:
    """Maps of a photograph, as `show` returns them. A notebook displays the object as its `image`.

    Attributes:
        photo: the photograph, RGB, turned as its EXIF data say.
        crop: what the model sees of it: left, top, right and bottom in its pixels; beyond its edges if it was padded.
        crop_maps: the maps of the crop, `(layers, targets, h, w)`, float32, in [0, 1].
        layers: names of the target layers.
        targets: class indices.
        classes: class names by index.
        scores: the model's output for each class, float32.
        style: the options of the overlays, as in `show`: `scale`, `colormap`, `opacity`.

    Example:
        >>> from PIL import Image
        >>> from holistic_cam_plugin import show
        >>> shown = show("digits", Image.new("RGB", (300, 200)), sizes=[224])
        >>> shown.maps.shape, shown.crop
        ((1, 1, 200, 300), (50.0, 0.0, 250.0, 200.0))
    """

    photo: Image.Image
    crop: Box
    crop_maps: NDArray[np.float32]
    layers: list[str]
    targets: list[int]
    classes: list[str]
    scores: NDArray[np.float32]
    style: dict[str, Any]

    @property
    def maps(self) -> NDArray[np.float32]:
        """The maps at the photograph's own size, `(layers, targets, height, width)`, float32, in [0, 1].

        They are NaN where the photograph was cropped away.
        """
        return np.stack([[place_map(one, self.crop, self.photo.size) for one in some] for some in self.crop_maps])

    @property
    def image(self) -> Image.Image:
        """The photograph beside its overlays, RGB: one row per class, one column per layer.

        Each has the photograph's own size, or less where all of them would be wider or higher than 2,048 px.
        """
        labels = [self._describe(target) for target in self.targets]
        largest = (_LARGEST // (1 + len(self.layers)), _LARGEST // len(labels))
        rows = build_photo_rows(
            self.photo, self.crop, labels, self.layers, [*np.swapaxes(self.crop_maps, 0, 1)], largest, **self.style
        )
        return arrange_panels(rows, "" if is_whole(self.crop, self.photo.size) else UNSEEN)

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write `image` to a file in the format of its suffix, with the options of `PIL.Image.Image.save`."""
        self.image.save(path, **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()

    def __repr__(self) -> str:
        shown = ", ".join(map(self._describe, self.targets))
        return f"PhotoMaps({self.photo.width} x {self.photo.height} px: {shown}; layers {', '.join(self.layers)})"

    def _describe(self, target: int) -> str:
        odds = np.exp(self.scores - self.scores.max())
        return describe_class(self.classes[target], float(odds[target] / odds.sum()))


def describe_class(name: str, probability: float) -> str:
    """The class and its probability, in a figure.

    Example:
        >>> describe_class("tabby", 0.386), describe_class("lynx", 0.001)
        ('tabby, 39 %', 'lynx, < 1 %')
    """
    percent = round(100 * probability)
    return f"{name}, {percent or '< 1'} %"


def build_photo_rows(
    photo: Image.Image,
    crop: Box,
    labels: Sequence[str],
    columns: Sequence[str],
    maps: Sequence[Sequence[NDArray[np.float32]]],
    largest: tuple[int, int],
    *,
    notes: Sequence[str] = (),
    **style: Any,
) -> list[list[Panel]]:
    """Build rows of panels: the photograph and its overlays.

    Args:
        photo, crop: as in `PhotoMaps`.
        labels, columns: texts above the photograph of each row, and above its overlays.
        maps: of the crop, for each row one per column.
        largest: width and height of a panel, at most.
        notes: a faint text for each row.
        style: as in `overlay_photograph`.
    """
    size = bound_size(photo.size, largest)
    shown, box = photo.resize(size, Image.Resampling.LANCZOS), scale_box(crop, photo.size, size)
    rows = []
    for label, some, note in zip(labels, maps, notes or [""] * len(labels), strict=True):
        overlays = [Image.fromarray(overlay_photograph(np.asarray(shown), one, box, **style)) for one in some]
        rows.append([Panel(shown, label, note), *map(Panel, overlays, columns)])
    return rows
