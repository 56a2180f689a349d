"""`holistic-cam batch`: the maps of a data set."""

from __future__ import annotations

import argparse
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from holistic_cam_plugin.cli.arguments import (
    Parser,
    add_method_options,
    add_model_options,
    check_model_files,
    parse_output,
    parse_positive,
)
from holistic_cam_plugin.cli.hints import tell_offline
from holistic_cam_plugin.errors import RESUME, Stopped, check_file
from holistic_cam_plugin.names import DEFAULT_MODEL

__all__ = ["add_batch_command"]

# More threads are useless, and some systems crash.
MAX_WORKERS = max(256, 4 * (os.cpu_count() or 1))

_DESCRIPTION = """\
The maps of many images, in a folder. The command can be killed at any moment: run it again, and it makes what is
missing. A map is written whole or not at all.

  DIR/maps/NAME.npz      maps (methods, layers, targets, H, W) in [0, 1], and methods, layers, targets, scores
  DIR/overlays/NAME.jpg  with --overlays
  DIR/record.sqlite      the images, their maps and what they depend on; a restart with other parameters is refused
  DIR/manifest.csv       at the end, one row per map; manifest.parquet, too, if pyarrow is installed
  DIR/errors.csv         the images that could not be explained, and why
"""
_EPILOG = """\
exit code: 0 all explained; 1 some failed, see errors.csv; 2 a mistake in the command; 3 stopped by a full disk or the
like; 130 or 143 stopped by Ctrl-C or SIGTERM.

examples:
  holistic-cam batch photos --output maps
  holistic-cam batch val --imagefolder --model resnet18 --weights resnet18.pth --layers layer3 layer4 --output maps
  holistic-cam batch list.csv --root photos --overlays --device cuda --batch-size 16 --amp --output maps
  holistic-cam batch photos --output maps --ray               (a process per GPU or core; pip install "...[ray]")
  holistic-cam batch photos --model digits --output maps      (the bundled model, offline)
"""


def add_batch_command(commands: Any) -> None:
    """Add `batch` to the subparsers."""
    parser: Parser = commands.add_parser("batch", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add(
        "input", type=Path, metavar="INPUT",
        help="a folder, with all its folders, or a CSV with a column file and, optionally, target, label, mask, and "
        "left, top, right, bottom",
    )  # fmt: skip
    add("--output", type=parse_output, required=True, metavar="DIR", help="a new folder, or that of a run to resume")
    add("--imagefolder", action="store_true", help="the folders directly in INPUT are the labels, which are explained")
    add("--root", type=Path, metavar="DIR", help="folder of the CSV's files (default: the CSV's folder)")
    add_model_options(parser, DEFAULT_MODEL)
    add_method_options(parser, ["classholisticcam"], "the last layer of the model's last stage")
    add("--no-crop", action="store_true", help="explain the whole image, its shorter side resized, not only its centre")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of the stored maps (default: float16)")
    add("--overlays", action="store_true", help="also write the maps over the pictures, as JPEG")
    add("--batch-size", type=parse_positive, metavar="N", help="images per batch (default: 1, on a GPU 8)")
    add(
        "--workers", type=_parse_workers, default=min(2, os.cpu_count() or 1), metavar="N",
        help="threads that read images ahead (default: 2)",
    )  # fmt: skip
    add(
        "--verify", action="store_true",
        help="read all archives of earlier runs: those that are damaged are made again, not only missing or torn ones",
    )  # fmt: skip
    add(
        "--shard", type=_parse_shard, metavar="I/N",
        help="every N-th image, the I-th first, such as $SLURM_ARRAY_TASK_ID/8; each I needs an --output of its own",
    )  # fmt: skip
    add(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="explain on Ray, with an actor per GPU or core: on a cluster, such as auto or 10.0.0.1:6379, or on this "
        "machine (default). All of them must see INPUT under the same path",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: Namespace) -> int:
    if not os.path.isdir(arguments.input):
        check_file(arguments.input)
    check_model_files([arguments.model or DEFAULT_MODEL], [arguments.weights], [arguments.labels])
    tell_offline([arguments.model or DEFAULT_MODEL], [arguments.weights])
    from holistic_cam_plugin.cli.batch_job import run_job

    try:
        return run_job(arguments)
    except Stopped as stop:
        raise Stopped(stop.number, f": {RESUME}") from stop


def _parse_workers(text: str) -> int:
    """Parse a number of threads that this machine supports."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    if int(text) > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text} are too many for the {os.cpu_count()} cores of this machine")
    return int(text)


def _parse_shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, such as 1/4, got {text!r}")
    return int(index), int(count)
