"""The report of an output folder: one HTML page with a card for each image that shows all its maps."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, read_records
from holistic_cam_plugin.batch.parameters import PARAMETERS, read_parameters
from holistic_cam_plugin.batch.writing import convert_write_errors
from holistic_cam_plugin.display import format_percent
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.files import write_whole
from holistic_cam_plugin.methods import METHODS, Progress, display_name
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.report.cards import Card, CardBuilder, sort_layers
from holistic_cam_plugin.report.pictures import encode_data_uri, encode_legend, store_pictures

__all__ = ["PAGE", "PICTURES", "write_report"]

PAGE, PICTURES = "report.html", "report"  # in the output folder

_SETTINGS = ("model", "layers", "methods", "sizes", "dtype", "amp", "device")  # shown on the page

# Where a long file name may be wrapped.
_WRAP = re.compile(r"(?<=[/_-])|(?=\.)")


def write_report(
    folder: Path,
    root: Path | None,
    limit: int,
    progress: Progress,
    *,
    colormap: str,
    self_contained: bool,
) -> None:
    """Write the report of an output folder; its run need not be finished.

    The page appears whole or not at all, and the same maps always give the same bytes.

    Args:
        folder: The output folder, with maps and manifest.
        root: The folder of the images. None: where they were. Maps of missing images are shown over grey.
        limit: The largest number of images on the page, taken at equal distances.
        progress: A wrapper for the loop over the images, such as `tqdm.tqdm`.
        colormap: A key of `COLORMAPS`.
        self_contained: Embed the pictures in the page instead of storing them in a folder beside it.

    Raises:
        UsageError: `folder` is not an output folder or has no maps, `root` is not a folder, or another report of
            `folder` is being made.
        OutputError: The report could not be written.
    """
    parameters, preprocessing = _read_parameters(folder)
    if root is not None and not root.is_dir():
        raise UsageError(f"--root must be a folder, got {root}")
    total, images = _select_images(folder, limit)
    failures = [rows[0] for rows in read_records(folder, ERRORS)]
    root = root or Path(str(parameters["input"]))
    pictures = nullcontext(encode_data_uri) if self_contained else store_pictures(folder, PICTURES)
    with convert_write_errors(folder), pictures as add_picture:
        builder = CardBuilder(folder, root, preprocessing, parameters["crop"], colormap, add_picture)
        cards: Iterable[Card] = map(builder.build, progress(images))
        if not self_contained:
            cards = list(cards)  # all pictures are stored before the page that shows them
        page = _render(
            title=f"Maps in {folder.absolute().name}",
            total=total,
            shown=len(images),
            settings=[(name, _format_setting(parameters.get(name))) for name in _SETTINGS],
            classes=sorted({row["class"] for rows in images for row in rows}),
            layers=sort_layers(row["layer"] for rows in images for row in rows),
            methods=list(dict.fromkeys(row["method"] for rows in images for row in rows)),
            colormap=colormap,
            legend=encode_data_uri(encode_legend(colormap), "png"),
            cards=cards,
            failures=failures[:limit],
            failed=len(failures),
        )
        write_whole(folder, PAGE, page)


def _read_parameters(folder: Path) -> tuple[dict[str, Any], Preprocessing]:
    try:
        parameters: dict[str, Any] = read_parameters(folder / PARAMETERS)
        [parameters[key] for key in ("input", "crop")]
        return parameters, Preprocessing.from_json(parameters["preprocessing"])
    except (OSError, UsageError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder} is not an output folder of holistic-cam batch: {PARAMETERS}: {error}") from error


def _select_images(folder: Path, limit: int) -> tuple[int, list[list[dict[str, str]]]]:
    """Return the number of images with maps, and the rows of those to show, sorted by name.

    Raises:
        UsageError: No image has maps.
    """
    latest = {rows[0]["file"]: number for number, rows in enumerate(read_records(folder, MANIFEST))}
    numbers = [latest[file] for file in sorted(latest)]
    if not numbers:
        raise UsageError(f"{folder} contains no maps yet: run holistic-cam batch first")
    total, count = len(numbers), min(limit, len(numbers))
    selected = {numbers[place * total // count] for place in range(count)}
    images = [rows for number, rows in enumerate(read_records(folder, MANIFEST)) if number in selected]
    return total, sorted(images, key=lambda rows: rows[0]["file"])


def _render(**content: object) -> Iterator[bytes]:
    """Yield the page piece by piece: with embedded pictures it may be larger than the memory."""
    loader = PackageLoader("holistic_cam_plugin.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "wrappable": lambda name: Markup("<wbr>").join(_WRAP.split(name)),
        "figures": lambda value: f"{value:.3g}",
        "method_name": lambda method: display_name(method) if method in METHODS else method,
        "percent": lambda share: format_percent(share) if share >= 1e-4 else "< 0.01 %",
    }
    script, style = (Markup(loader.get_source(environment, f"report.{kind}")[0]) for kind in ("js", "css"))
    # The content security policy allows this script alone, and none injected by a file name.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html")
    for piece in template.generate(script=script, script_hash=f"sha256-{digest}", style=style, **content):
        yield piece.encode(errors="backslashreplace")  # folder names may be invalid UTF-8


def _format_setting(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
