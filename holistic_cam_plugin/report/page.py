"""The report of output folders: an HTML page, beside the pictures that it shows."""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holistic_cam_plugin.batch.ahead import map_ahead
from holistic_cam_plugin.batch.record import lock_folder
from holistic_cam_plugin.display import format_percent
from holistic_cam_plugin.errors import UsageError, convert_write_errors
from holistic_cam_plugin.files import write_whole
from holistic_cam_plugin.methods import METHODS, Progress, display_name
from holistic_cam_plugin.models.pictures import silence_decoders
from holistic_cam_plugin.names import COLORMAP
from holistic_cam_plugin.report.cards import COLUMNS, MAP_COLUMNS, CardBuilder, sort_layers
from holistic_cam_plugin.report.objects import find_mask
from holistic_cam_plugin.report.pictures import encode_data_uri, encode_legend, store_pictures
from holistic_cam_plugin.report.results import Results, read_results
from holistic_cam_plugin.report.statistics import summarize

__all__ = ["PAGE", "Look", "write_report"]

PAGE = "index.html"  # in the report's folder

_SETTINGS = ("model", "layers", "methods", "sizes", "dtype", "amp", "device")  # shown on the page

# Cards are built by a thread per core, some before they are needed.
THREADS = os.cpu_count() or 1
CARDS_AHEAD = 4 * THREADS

# Failed images named on the page, per reason.
NAMED_FAILURES = 100

# The classes that the page names.
_TARGETS = "SELECT target FROM maps UNION SELECT label FROM images UNION SELECT predicted FROM images"


class Look(NamedTuple):
    """How a report looks, and where its images are.

    Attributes:
        root: the folder of the images; None: where they were. Maps of missing images are shown over gray.
        masks: a folder with a mask of the object per image, as in `find_mask`; None: those that the records name.
        limit: the largest number of images with cards, taken at equal distances.
        colormap: one of `names.COLORMAPS`.
        self_contained: embed the pictures in the page instead of storing them beside it.
    """

    root: Path | None = None
    masks: Path | None = None
    limit: int = 10_000
    colormap: str = COLORMAP
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
    for option, folder in (("--root", look.root), ("--masks", look.masks)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{option} must be a folder, got {folder}")
    with convert_write_errors(output), ExitStack() as held:
        results = read_results(folders, look.root, held)
        selected = _select(results, folders, look)
        output.mkdir(parents=True, exist_ok=True)
        held.enter_context(closing(lock_folder(output)))
        pictures = nullcontext(encode_data_uri) if look.self_contained else store_pictures(output)
        builder = CardBuilder(
            results.sources, look.root is not None, look.masks, results.preprocessing, results.parameters["crop"],
            look.colormap, held.enter_context(pictures),
        )  # fmt: skip
        held.enter_context(silence_decoders())
        built = map_ahead(builder.build, progress(selected), THREADS, CARDS_AHEAD)
        cards: Iterable[list[Any]] = held.enter_context(closing(built))
        if not look.self_contained:
            cards = list(cards)  # all pictures are stored before the page that shows them
        title = f"Maps in {', '.join(folder.absolute().name for folder in folders)}"
        legend = encode_data_uri(encode_legend(look.colormap), "png")
        page = _render(**_describe(results), shown=len(selected), title=title, look=look, legend=legend, cards=cards)
        write_whole(output, PAGE, page)
    return output / PAGE


def _select(results: Results, folders: Sequence[Path], look: Look) -> list[sqlite3.Row]:
    """Return the images with cards, at equal distances."""
    images = results.explained
    if not images:
        raise UsageError(f"{folders[0]} contains no maps yet: run holistic-cam batch first")
    if look.masks is not None and not any(find_mask(look.masks, image["file"]) for image in images):
        expected = Path(images[0]["file"]).with_suffix(".png")
        raise UsageError(f"--masks {look.masks} has no mask of any image; it may be called {look.masks / expected}")
    count = min(look.limit, len(images))
    return [images[place * len(images) // count] for place in range(count)]


def _describe(results: Results) -> dict[str, object]:
    """Return what the page says about all images."""
    chosen = results.parameters
    targets = {number for source in results.sources for number in source.record.connection.execute(_TARGETS)}
    return {
        "summary": summarize(results.explained, results.failed),
        "failed": len(results.failed),
        "named_failures": NAMED_FAILURES,
        "settings": [(name, _format_setting(chosen.get(name))) for name in _SETTINGS],
        "names": {number: results.classes[number] for (number,) in targets if number in range(len(results.classes))},
        "layers": sort_layers(chosen["layers"]),
        "methods": {key: display_name(key) if key in METHODS else key for key in chosen["methods"]},
        "columns": COLUMNS,
        "map_columns": MAP_COLUMNS,
    }


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
    """Round the numbers of the page's data to six digits, in nested lists."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_round(item) for item in value] if isinstance(value, (list, tuple)) else value


def _format_setting(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
