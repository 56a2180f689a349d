"""`holistic-cam report`: one HTML page of what a batch has made."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holistic_cam_plugin.cli.arguments import Parser, parse_positive
from holistic_cam_plugin.cli.printing import say
from holistic_cam_plugin.display import COLORMAPS
from holistic_cam_plugin.report.page import PAGE, PICTURES, write_report

__all__ = ["add_report_command"]

_DESCRIPTION = f"""\
One HTML page of what holistic-cam batch has made so far: DIR/{PAGE}, with its pictures in DIR/{PICTURES}. A card per
image shows all its maps, layers down and methods across; a click enlarges a map. Keep the folder with the page, or ask
for --self-contained.
"""


def add_report_command(commands: Any) -> None:
    """Add `report` to the subparsers."""
    parser: Parser = commands.add_parser("report", description=_DESCRIPTION)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the --output of holistic-cam batch")
    add("--root", type=Path, metavar="DIR", help="where the images are (default: where they were)")
    add("--limit", type=parse_positive, default=1000, metavar="N", help="most images on the page (default: 1000)")
    add(
        "--colormap", choices=COLORMAPS, default="jet",
        help="default: jet, as in pytorch-grad-cam; it shows edges that are not in the map; viridis, inferno, magma "
        "and cividis do not",
    )  # fmt: skip
    add(
        "--self-contained", action="store_true",
        help="embed the pictures in the page: a single file, about 200 kB per image",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    progress = partial(tqdm, desc="pictures", unit="image", disable=None, leave=False)
    write_report(
        arguments.folder, arguments.root, arguments.limit, progress, colormap=arguments.colormap,
        self_contained=arguments.self_contained,
    )  # fmt: skip
    page = arguments.folder / PAGE
    say(f"{page}", f"{page} is written, but ")
    return 0
