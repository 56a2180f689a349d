"""`holistic-cam report`: one HTML page of what a batch has made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from holistic_cam_plugin.batch.html_report import PAGE, PICTURES, write_report
from holistic_cam_plugin.batch.writing import OutputError
from holistic_cam_plugin.cli.arguments import Parser, positive
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.display import COLORMAPS
from holistic_cam_plugin.errors import UsageError

__all__ = ["report"]

_DESCRIPTION = f"""\
One HTML page of what holistic-cam batch has made so far: DIR/{PAGE}, with its pictures in DIR/{PICTURES}. A card for
each image shows all its maps, layers down and methods across; a click shows one as large as the window. Keep the
folder with the page, or ask for --self-contained.
"""


def report(argv: Sequence[str]) -> int:
    """Run `holistic-cam report`; the exit code is 0, or 2 or 3 after a line on what went wrong."""
    parser = Parser(prog="holistic-cam report", description=_DESCRIPTION)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the --output of holistic-cam batch")
    add("--root", type=Path, metavar="DIR", help="where the images are (default: where they were)")
    add("--limit", type=positive, default=1000, metavar="N", help="images on the page (default: 1000)")
    add(
        "--colormap", choices=COLORMAPS, default="jet",
        help="default: jet, the library's. It shows edges where a map has none; viridis, inferno, magma and cividis, "
        "perceptually uniform, do not",
    )  # fmt: skip
    add(
        "--self-contained",
        action="store_true",
        help="the pictures inside the page: one file to pass on, about 200 kB an image",
    )
    arguments = parser.parse_args(argv)
    progress = partial(tqdm, desc="pictures", unit="image", disable=None, leave=False)
    try:
        write_report(
            arguments.folder, arguments.root, arguments.limit, progress, colormap=arguments.colormap,
            self_contained=arguments.self_contained,
        )  # fmt: skip
    except UsageError as error:
        complain(f"holistic-cam report: error: {error}")
        return 2
    except OutputError as error:
        complain(f"holistic-cam report: stopped: {error}")
        return 3
    page = arguments.folder / PAGE
    try:
        say(f"{page}")
    except OSError as error:
        complain(f"holistic-cam report: stopped: {page} is written, but not this: {error}")
        return 3
    return 0
