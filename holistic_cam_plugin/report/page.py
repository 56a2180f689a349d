"""The report of output folders: an HTML page, beside the pictures that it shows."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holistic_cam_plugin.batch.loading import silence_decoders
from holistic_cam_plugin.display import format_percent
from holistic_cam_plugin.errors import UsageError, convert_write_errors
from holistic_cam_plugin.files import write_whole
from holistic_cam_plugin.methods import METHODS, Progress, display_name
from holistic_cam_plugin.report.cards import Card, CardBuilder, MapPicture, sort_layers
from holistic_cam_plugin.report.objects import find_mask
from holistic_cam_plugin.report.pictures import encode_data_uri, encode_legend, store_pictures
from holistic_cam_plugin.report.results import MapRows, Result, Results, read_maps, read_results
from holistic_cam_plugin.report.statistics import summarize

__all__ = ["PAGE", "Look", "write_report"]

PAGE = "index.html"  # in the report's folder

_SETTINGS = ("model", "layers", "methods", "sizes", "dtype", "amp", "device")  # shown on the page

# Cards that are built before they are needed.
CARDS_AHEAD = 64

# Failed images named on the page, per reason.
_NAMED_FAILURES = 100


class Look(NamedTuple):
    """How a report looks, and where its images are.

    Attributes:
        root: the folder of the images; None: where they were. Maps of missing images are shown over gray.
        masks: a folder with a mask of the object per image, as in `find_mask`; None: those that the records name.
        limit: the largest number of images with cards, taken at equal distances.
        colormap: a key of `COLORMAPS`.
        self_contained: embed the pictures in the page instead of storing them beside it.
    """

    root: Path | None = None
    masks: Path | None = None
    limit: int = 10_000
    colormap: str = "jet"
    self_contained: bool = False


def write_report(folders: Sequence[Path], output: Path, look: Look, progress: Progress) -> Path:
    """Write the report of one or more output folders; their runs need not be finished.

    The page appears whole or not at all.

    Args:
        folders: the output folders, with maps and records.
        output: the report's folder, created if needed.
        progress: a wrapper for the loop over the images, such as `tqdm.tqdm`.

    Returns:
        The page.

    Raises:
        UsageError: a folder is not an output folder, the folders were made with different settings or have no maps,
            `root` or `masks` is not a folder, no image has a mask, or another report is being written to `output`.
        OutputError: the report could not be written.
    """
    results = read_results(folders)
    selected = _select(results, folders, look)
    rows = read_maps(selected)
    with convert_write_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        with nullcontext(encode_data_uri) if look.self_contained else store_pictures(output) as add_picture:
            builder = CardBuilder(
                look.root, look.masks, results.preprocessing, results.parameters["crop"], look.colormap, add_picture
            )
            cards: Iterable[Card] = _build_cards(builder, selected, rows, progress)
            if not look.self_contained:
                cards = list(cards)  # all pictures are stored before the page that shows them
            page = _render(
                **_describe(results, selected, rows),
                title=f"Maps in {', '.join(folder.absolute().name for folder in folders)}",
                colormap=look.colormap,
                legend=encode_data_uri(encode_legend(look.colormap), "png"),
                cards=cards,
            )
            write_whole(output, PAGE, page)
    return output / PAGE


def _select(results: Results, folders: Sequence[Path], look: Look) -> list[Result]:
    """Return the images with cards, at equal distances."""
    for option, folder in (("--root", look.root), ("--masks", look.masks)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{option} must be a folder, got {folder}")
    images = results.explained
    if not images:
        raise UsageError(f"{folders[0]} contains no maps yet: run holistic-cam batch first")
    if look.masks is not None and not any(find_mask(look.masks, image.file) for image in images):
        expected = Path(images[0].file).with_suffix(".png")
        raise UsageError(f"--masks {look.masks} has no mask of any image; it may be called {look.masks / expected}")
    count = min(look.limit, len(images))
    return [images[place * len(images) // count] for place in range(count)]


def _build_cards(
    builder: CardBuilder,
    selected: Sequence[Result],
    rows: MapRows,
    progress: Progress,
) -> Iterator[Card]:
    """Yield the cards in order, built by a thread per core a few cards ahead."""
    with silence_decoders(), ThreadPoolExecutor() as pool:
        ahead: deque[Future[Card]] = deque()
        for image in progress(selected):
            ahead.append(pool.submit(builder.build, image, rows.get((image.folder, image.file), [])))
            if len(ahead) > CARDS_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _describe(results: Results, selected: Sequence[Result], rows: MapRows) -> dict[str, object]:
    """Return what the page says about all images, and the names that its data refer to."""
    maps = [row for some in rows.values() for row in some]
    summary = summarize(results.explained, results.failed)
    shown = {number for image in selected for number in (image.label, image.predicted) if number is not None}
    shown |= {number for pair in summary.confusions for number in pair[:2]} | {row.label for row in summary.classes}
    names = {number: _name_class(results.classes, number) for number in sorted(shown)}
    return {
        "summary": summary,
        "failed": len(results.failed),
        "named_failures": _NAMED_FAILURES,
        "shown": len(selected),
        "settings": [(name, _format_setting(results.parameters.get(name))) for name in _SETTINGS],
        "names": names | {row.target: row.name for row in maps},
        "layers": sort_layers(row.layer for row in maps),
        "methods": {row.method: _name_method(row.method) for row in maps},
        "image_columns": Card._fields,
        "map_columns": MapPicture._fields,
    }


def _name_class(classes: Sequence[str], number: int) -> str:
    return classes[number] if 0 <= number < len(classes) else f"class {number}"


def _name_method(method: str) -> str:
    return display_name(method) if method in METHODS else method


def _render(**content: object) -> Iterator[bytes]:
    """Yield the page piece by piece: with embedded pictures it may be larger than the memory."""
    loader = PackageLoader("holistic_cam_plugin.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": format_percent, "rounded": _round}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    script, style = (Markup(loader.get_source(environment, f"report.{kind}")[0]) for kind in ("js", "css"))
    # The content security policy allows this script alone, and none injected by a file name.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html")
    for piece in template.generate(script=script, script_hash=f"sha256-{digest}", style=style, **content):
        yield piece.encode(errors="backslashreplace")  # folder names may be invalid UTF-8


def _round(value: Any) -> Any:
    """Round the numbers of the page's data to the digits that it shows, in nested lists."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_round(item) for item in value] if isinstance(value, (list, tuple)) else value


def _format_setting(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
