"""`holistic-cam report`: one HTML page of what a batch has made."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holistic_cam_plugin.batch.record import check_output
from holistic_cam_plugin.cli.arguments import Parser, add_colormap_option, parse_positive
from holistic_cam_plugin.cli.printing import say

__all__ = ["add_report_command"]

FOLDER = "report"  # in the output folder

_DESCRIPTION = f"""\
One HTML page of what holistic-cam batch has made so far, with its pictures beside it: DIR/{FOLDER}/index.html. A
summary tells the accuracy, the classes that are confused, the maps' coverage and why images failed. A card per image
shows its label and prediction and all its maps, layers down and methods across; a click enlarges a map.
"""


def add_report_command(commands: Any) -> None:
    """Add `report` to the subparsers."""
    parser: Parser = commands.add_parser("report", description=_DESCRIPTION)
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="DIR", help="the --output of holistic-cam batch; several on one page")
    add(
        "--output", type=Path, metavar="FOLDER",
        help=f"where the page and its pictures go (default: {FOLDER} in the first DIR)",
    )  # fmt: skip
    add("--root", type=Path, metavar="DIR", help="where the images are (default: where they were)")
    add(
        "--masks", type=Path, metavar="DIR",
        help="a mask of the object per image, white on black, with the image's path and name: adds average precision "
        "and the share of the energy inside the object (default: the column mask or the boxes of the batch's table)",
    )  # fmt: skip
    add("--limit", type=parse_positive, default=10_000, metavar="N", help="most images with cards (default: 10000)")
    add_colormap_option(parser)
    add(
        "--self-contained", action="store_true",
        help="embed the pictures in the page: a single file, about 200 kB per image",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    for folder in arguments.folders:
        check_output(folder)
    from holistic_cam_plugin.report.page import Look, write_report

    progress = partial(tqdm, desc="pictures", unit="image", disable=None, leave=False)
    look = Look(arguments.root, arguments.masks, arguments.limit, arguments.colormap, arguments.self_contained)
    page = write_report(arguments.folders, arguments.output or arguments.folders[0] / FOLDER, look, progress)
    say(f"{page}", f"{page} is written, but ")
    return 0
