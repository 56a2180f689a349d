"""Arguments of `holistic-cam batch`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from holistic_cam_plugin.baselines.by_name import METHODS
from holistic_cam_plugin.batch.parameters import most_threads
from holistic_cam_plugin.cli.arguments import MODELS, Parser, method_argument, positive

__all__ = ["BUNDLED", "batch_arguments"]

BUNDLED = "digits"

_DESCRIPTION = """\
The maps of many images, in a folder that can be killed at any moment: the same command goes on where it stopped, and
ends with the same bytes. A map appears whole or not at all.

  DIR/maps/NAME.npz      maps (methods, layers, targets, H, W) in [0, 1], and methods, layers, targets, scores
  DIR/overlays/NAME.jpg  with --overlays
  DIR/manifest.csv       one row a map; while the run is at work, manifest-RANK.csv
  DIR/errors.csv         the images that could not be explained, and why
  DIR/parameters.json    what the maps depend on; a restart with anything else is refused

Several processes, each with its own share: torchrun --nproc-per-node N -m holistic_cam_plugin batch INPUT ...
"""
_EPILOG = """\
exit code: 0 all explained; 1 some failed, see errors.csv; 2 the command can't be meant; 3 stopped by a full disk or the
like; 130 or 143 stopped by Ctrl-C or SIGTERM. (torchrun itself turns all but 0 into 1.)

examples:
  holistic-cam batch photos --output maps
  holistic-cam batch val --imagefolder --model resnet18 --weights resnet18.pth --layers layer3 layer4 --output maps
  holistic-cam batch list.csv --root photos --overlays --device cuda --batch-size 16 --amp --output maps
  holistic-cam batch photos --model digits --output maps      (the bundled model, offline)
"""


def batch_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; exits with code 2 after a one-line message if they can't be understood."""
    parser = Parser(
        prog="holistic-cam batch",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="a folder, its folders included, or a CSV: file, target (one a row)")
    add("--output", type=Path, required=True, metavar="DIR", help="new, or that of a run to go on with")
    add("--imagefolder", action="store_true", help="explain the classes that the folders right below INPUT stand for")
    add("--root", type=Path, metavar="DIR", help="where the CSV's files are (default: the CSV's folder)")
    add("--target", nargs="+", metavar="CLASS", help="class indices or names to explain (default: the predicted class)")
    add("--model", metavar="NAME", help=f"{MODELS} (default: resnet50), or {BUNDLED}, the bundled one")
    parser.add_model_files()
    add("--layers", nargs="+", metavar="NAME", help="target layers by module name (default: the model's last stage)")
    add(
        "--methods", "--method", nargs="+", type=method_argument, default=["holisticcampositive"], metavar="NAME",
        help=f"any of {', '.join(METHODS)} (default: holisticcampositive)",
    )  # fmt: skip
    parser.add_pyramid()
    add("--no-crop", action="store_true", help="the whole image, the shorter side resized, instead of its centre")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of the stored maps (default: float16)")
    add("--overlays", action="store_true", help="also write the maps over the pictures, as JPEG")
    add("--device", metavar="NAME", help="such as cpu or cuda (default: a GPU if there is one; one for each rank)")
    add("--batch-size", type=positive, metavar="N", help="images that go through together (default: 1, on a GPU 8)")
    add(
        "--workers", type=_few, default=min(2, os.cpu_count() or 1), metavar="N",
        help="threads that read images ahead, for each rank (default: 2)",
    )  # fmt: skip
    add(
        "--threads", type=_threads, metavar="N",
        help="of PyTorch on a CPU; a map's last bits depend on it (default: PyTorch's own; in a restart the folder's)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.imagefolder and arguments.target:
        parser.error("--imagefolder and --target both name the classes to explain: give one of them")
    return arguments


def _threads(text: str) -> int:
    positive(text)
    return _few(text)


def _few(text: str) -> int:
    """A number of threads that this machine can bear."""
    if (number := _count(text)) > most_threads():
        raise argparse.ArgumentTypeError(f"{text} are too many for the {os.cpu_count()} cores of this machine")
    return number


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(text)
