"""`holistic-cam merge`: one record of the shards of a batch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from holistic_cam_plugin.batch.merging import merge_shards
from holistic_cam_plugin.cli.arguments import Parser
from holistic_cam_plugin.cli.printing import say

__all__ = ["add_merge_command"]

_DESCRIPTION = """\
Merge the records of holistic-cam batch --shard, when all shards are done: DIR/record-I-of-N.sqlite become
DIR/record.sqlite, and DIR/manifest.csv and DIR/errors.csv are written.
"""


def add_merge_command(commands: Any) -> None:
    """Add `merge` to the subparsers."""
    parser: Parser = commands.add_parser("merge", description=_DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --output of holistic-cam batch")
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    count = merge_shards(arguments.folder)
    manifest = arguments.folder / "manifest.csv"
    say(f"{count} shards are merged\n{manifest}", f"{manifest} is written, but ")
    return 0
