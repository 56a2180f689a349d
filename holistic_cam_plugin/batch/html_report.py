"""One self-contained page of what a batch has made: pictures, maps over them, and the manifest's figures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from holistic_cam_plugin.batch.inputs import Job
from holistic_cam_plugin.batch.loading import JobImages
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, recorded
from holistic_cam_plugin.batch.overlays import jpeg_bytes, overlay
from holistic_cam_plugin.batch.parameters import PARAMETERS
from holistic_cam_plugin.errors import UsageError

__all__ = ["report_page"]

SIDE = 160  # of the thumbnails, in pixels
GREY = 128

_COLUMNS = ("file", "class", "score", "probability", "layer", "method", "seconds")
_NUMBERS = ("score", "probability", "seconds")
_SHOWN_PARAMETERS = ("model", "layers", "methods", "sizes", "dtype", "amp", "device")

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def report_page(folder: Path, root: Path | None, limit: int, progress: Progress) -> str:
    """The page of an output folder, also of one whose run is not finished.

    Args:
        folder: with the maps and the manifest.
        root: where the images are; None: where they were. Maps of images that are not there are shown over grey.
        limit: of the images on the page; of more, as many at equal distances.
        progress: wraps the iteration over the images.

    Raises:
        UsageError: the folder holds no output, or no map yet.
    """
    parameters = _parameters(folder)
    latest = {rows[0]["file"]: number for number, rows in enumerate(recorded(folder, MANIFEST))}
    numbers = [latest[file] for file in sorted(latest)]
    if not numbers:
        raise UsageError(f"{folder} holds no map yet")
    total, count = len(numbers), min(limit, len(numbers))
    taken = {numbers[place * total // count] for place in range(count)}
    images = [rows for number, rows in enumerate(recorded(folder, MANIFEST)) if number in taken]
    root = root or Path(str(parameters["input"]))
    cells = [
        _table_row(folder, row, picture)
        for rows in progress(sorted(images, key=lambda rows: rows[0]["file"]))
        for picture in [_picture(root, rows[0]["file"], parameters)]
        for row in rows
    ]
    failures = [rows[0] for rows in recorded(folder, ERRORS)]
    template = Template(resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"Maps in {folder.absolute().name}"),
        summary=escape(_summary(total, count, len(failures))),
        parameters=escape(", ".join(f"{name}: {_plain(parameters.get(name))}" for name in _SHOWN_PARAMETERS)),
        classes="".join(f"<option>{escape(name)}</option>" for name in _classes(images)),
        heads="".join(map(_head, _COLUMNS)),
        rows="\n".join(cells),
        errors=_errors(failures, limit),
    )


def _parameters(folder: Path) -> dict[str, object]:
    try:
        parameters: dict[str, object] = json.loads((folder / PARAMETERS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is no output folder of holistic-cam batch: {error}") from error
    return parameters


def _summary(total: int, shown: int, failed: int) -> str:
    summary = f"{total} images explained, {failed} failed."
    if shown < total:
        summary += f" {shown} of them are shown, at equal distances in the order of their names."
    return summary


def _picture(root: Path, file: str, parameters: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """What the model saw of the image, `(H, W, 3)`; None where it can't be read any more."""
    return JobImages(root, [Job(file)], parameters["resize"], parameters["crop"])[0].pixels


def _table_row(folder: Path, row: Mapping[str, str], picture: NDArray[np.uint8] | None) -> str:
    saliency_map = _map(folder, row)
    if picture is None:
        picture = np.full((*(saliency_map.shape if saliency_map is not None else (SIDE, SIDE)), 3), GREY, np.uint8)
    label = escape(f"map of {row['class']} in {row['file']}")
    images = f'<img src="{_data_uri(picture)}" alt="">'
    if saliency_map is None or saliency_map.shape != picture.shape[:2]:
        label += ": missing"
    else:
        images += f'<img class="map" src="{_data_uri(overlay(picture, saliency_map))}" alt="">'
    cells = "".join(_cell(column, row[column]) for column in _COLUMNS)
    return (
        f'<tr data-class="{escape(row["class"])}" data-file="{escape(row["file"])}"><td>'
        f'<button type="button" class="picture" aria-pressed="false" aria-label="{label}" title="{label}">{images}'
        f"</button></td>{cells}</tr>"
    )


def _map(folder: Path, row: Mapping[str, str]) -> NDArray[np.floating] | None:
    """The row's map, `(H, W)`; None where its file is missing or damaged."""
    try:
        with np.load(folder / row["map"]) as file:
            place = (
                file["methods"].tolist().index(row["method"]),
                file["layers"].tolist().index(row["layer"]),
                file["targets"].tolist().index(int(row["target"])),
            )
            saliency_map: NDArray[np.floating] = file["maps"][place]
    except Exception:  # a damaged archive raises whatever it leads to; the page says that the map is missing
        return None
    return saliency_map


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg_bytes(picture)).decode()}"


def _head(column: str) -> str:
    number = " data-number" if column in _NUMBERS else ""
    return f'<th scope="col" aria-sort="none"{number}><button type="button">{column}</button></th>'


def _cell(column: str, value: str) -> str:
    kind = "number" if column in _NUMBERS else "name" if column == "file" else ""
    return f'<td class="{kind}">{escape(value)}</td>' if kind else f"<td>{escape(value)}</td>"


def _classes(images: Iterable[Sequence[Mapping[str, str]]]) -> list[str]:
    return sorted({row["class"] for rows in images for row in rows})


def _errors(failures: Sequence[Mapping[str, str]], limit: int) -> str:
    if not failures:
        return ""
    rows = "".join(
        f'<tr><td class="name">{escape(row["file"])}</td><td>{escape(row["reason"])}</td></tr>'
        for row in islice(failures, limit)
    )
    more = f"<p>and {len(failures) - limit} more in errors.csv</p>" if len(failures) > limit else ""
    return f"<details><summary>{len(failures)} failed</summary><table>{rows}</table>{more}</details>"


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
