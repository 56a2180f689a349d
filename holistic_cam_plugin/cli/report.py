"""`holistic-cam report`: one HTML page of what a batch has made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from holistic_cam_plugin.batch.html_report import report_page
from holistic_cam_plugin.batch.store import write_whole
from holistic_cam_plugin.batch.writing import OutputError, writing
from holistic_cam_plugin.cli.arguments import Parser
from holistic_cam_plugin.cli.batch_arguments import positive
from holistic_cam_plugin.cli.printing import complain, say
from holistic_cam_plugin.errors import UsageError

__all__ = ["report"]

_DESCRIPTION = """\
One HTML page of what holistic-cam batch has made so far, with all its pictures inside: DIR/report.html. Columns sort by
a click, classes filter, a map appears over its picture under the mouse or by Tab and Enter.
"""


def report(argv: Sequence[str]) -> int:
    """Run `holistic-cam report`; the exit code is 0, or 2 or 3 after a line on what went wrong."""
    parser = Parser(prog="holistic-cam report", description=_DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --output of holistic-cam batch")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the images are (default: where they were)")
    parser.add_argument("--limit", type=positive, default=500, metavar="N", help="images on the page (default: 500)")
    arguments = parser.parse_args(argv)
    progress = partial(tqdm, desc="pictures", unit="image", disable=None, leave=False)
    try:
        page = report_page(arguments.folder, arguments.root, arguments.limit, progress)
        with writing(arguments.folder):
            write_whole(arguments.folder, "report.html", [page.encode(errors="backslashreplace")])
    except UsageError as error:
        complain(f"holistic-cam report: error: {error}")
        return 2
    except OutputError as error:
        complain(f"holistic-cam report: stopped: {error}")
        return 3
    try:
        say(f"{arguments.folder / 'report.html'}")
    except OSError as error:
        complain(f"holistic-cam report: stopped: {arguments.folder / 'report.html'} is written, but not this: {error}")
        return 3
    return 0
