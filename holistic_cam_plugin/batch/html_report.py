"""One page of what a batch has made: a card for each image with its picture and all its maps."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holistic_cam_plugin.baselines.by_name import METHODS, display_name
from holistic_cam_plugin.batch.manifest import ERRORS, MANIFEST, recorded
from holistic_cam_plugin.batch.parameters import PARAMETERS, read_parameters
from holistic_cam_plugin.batch.report_cards import Card, Cards, by_depth
from holistic_cam_plugin.batch.report_pictures import data_uri, legend_png, pictures_beside
from holistic_cam_plugin.batch.store import write_whole
from holistic_cam_plugin.batch.writing import writing
from holistic_cam_plugin.classifiers.preprocessing import Preprocessing
from holistic_cam_plugin.display import percent
from holistic_cam_plugin.errors import UsageError

__all__ = ["PAGE", "PICTURES", "write_report"]

PAGE, PICTURES = "report.html", "report"  # in the output folder

_SHOWN_PARAMETERS = ("model", "layers", "methods", "sizes", "dtype", "amp", "device")

# Where a file's name may go on in the next line.
_PARTS = re.compile(r"(?<=[/_-])|(?=\.)")

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def write_report(
    folder: Path, root: Path | None, limit: int, progress: Progress, *, colormap: str, self_contained: bool
) -> None:
    """Write the page of an output folder, also of one whose run is not finished.

    The page is there whole or not at all, and the same maps always give the same bytes.

    Args:
        folder: with the maps and the manifest.
        root: where the images are; None: where they were. Maps of images that are not there are shown over grey.
        limit: of the images on the page; of more, as many at equal distances.
        progress: wraps the iteration over the images.
        colormap: a key of `COLORMAPS`.
        self_contained: the pictures inside the page instead of in a folder beside it.

    Raises:
        UsageError: the folder holds no output, or no map yet; `root` is no folder; another report is being made.
        OutputError: no room, or no permission.
    """
    parameters, preprocessing = _parameters(folder)
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root} is no folder")
    total, images = _images(folder, limit)
    failures = [rows[0] for rows in recorded(folder, ERRORS)]
    root = root or Path(str(parameters["input"]))
    with writing(folder), nullcontext(data_uri) if self_contained else pictures_beside(folder, PICTURES) as address:
        cards = Cards(folder, root, preprocessing, parameters["crop"], colormap, address)
        made: Iterable[Card] = map(cards.card, progress(images))
        if not self_contained:
            made = list(made)  # all the pictures are there before the page that shows them
        page = _generated(
            title=f"Maps in {folder.absolute().name}",
            summary=_summary(total, len(images)),
            parameters=[(name, _plain(parameters.get(name))) for name in _SHOWN_PARAMETERS],
            classes=sorted({row["class"] for rows in images for row in rows}),
            layers=by_depth(row["layer"] for rows in images for row in rows),
            methods=list(dict.fromkeys(row["method"] for rows in images for row in rows)),
            colormap=colormap,
            legend=data_uri(legend_png(colormap), "png"),
            cards=made,
            failures=failures[:limit],
            failed=len(failures),
        )
        write_whole(folder, PAGE, page)


def _parameters(folder: Path) -> tuple[dict[str, Any], Preprocessing]:
    try:
        parameters: dict[str, Any] = read_parameters(folder / PARAMETERS)
        [parameters[key] for key in ("input", "crop")]
        return parameters, Preprocessing.from_json(parameters["preprocessing"])
    except (OSError, UsageError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder} is no output folder of holistic-cam batch: {PARAMETERS}: {error}") from error


def _images(folder: Path, limit: int) -> tuple[int, list[list[dict[str, str]]]]:
    """How many images have maps, and the rows of those on the page, sorted by name.

    Raises:
        UsageError: none has.
    """
    latest = {rows[0]["file"]: number for number, rows in enumerate(recorded(folder, MANIFEST))}
    numbers = [latest[file] for file in sorted(latest)]
    if not numbers:
        raise UsageError(f"{folder} holds no map yet")
    total, count = len(numbers), min(limit, len(numbers))
    taken = {numbers[place * total // count] for place in range(count)}
    images = [rows for number, rows in enumerate(recorded(folder, MANIFEST)) if number in taken]
    return total, sorted(images, key=lambda rows: rows[0]["file"])


def _generated(**content: object) -> Iterator[bytes]:
    """The page piece by piece: with its pictures inside it may be larger than the memory."""
    loader = PackageLoader("holistic_cam_plugin.batch")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "breakable": lambda name: Markup("<wbr>").join(_PARTS.split(name)),
        "figures": lambda value: f"{value:.3g}",
        "method_name": lambda method: display_name(method) if method in METHODS else method,
        "percent": lambda share: percent(share) if share >= 1e-4 else "< 0.01 %",
    }
    script, style = (Markup(loader.get_source(environment, f"report.{kind}")[0]) for kind in ("js", "css"))
    # The page's own script runs, and no other that might have got into it.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html")
    for piece in template.generate(script=script, script_hash=f"sha256-{digest}", style=style, **content):
        yield piece.encode(errors="backslashreplace")  # names of folders may be no UTF-8


def _summary(total: int, shown: int) -> str:
    summary = f"{total} images explained."
    if shown < total:
        summary += f" {shown} of them are shown, at equal distances in the order of their names."
    return summary


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
