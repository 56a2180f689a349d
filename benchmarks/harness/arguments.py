"""The command line that all the experiments share."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.harness.methods import DEFAULT_METHODS, EXPLAINERS, WRAP

__all__ = ["HALVES", "experiment_parser"]

HALVES = ("tuned", "reported")


def experiment_parser(description: str | None, samples: int | None = None) -> argparse.ArgumentParser:
    """A parser with the common arguments.

    Args:
        description: the experiment's docstring.
        samples: the default number of images, None for all.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="resnet50", help="as of holistic-cam, or digits (resnet50)")
    add("--weights", type=Path, metavar="FILE", help="state dict (the model's own weights)")
    add("--images", default="digits", help="folder of images, or digits for the bundled scenes with boxes (digits)")
    add("--labels", type=Path, metavar="FILE", help="CSV: file, class_index, and x0, y0, x1, y1 (IMAGES/labels.csv)")
    add("--boxes", type=Path, metavar="FOLDER", help="ImageNet's XML files of boxes")
    add("--masks", type=Path, metavar="FOLDER", help="PNG masks of the objects by the images' names, white inside")
    add("--grid", action="store_true", help="localise in 2x2 grids of the images, where there are no boxes")
    add("--layers", nargs="+", metavar="NAME", help="target layers (the last layer of each stage)")
    known = ", ".join([*EXPLAINERS, f"NAME{WRAP}"])
    add("--methods", nargs="+", default=list(DEFAULT_METHODS), metavar="NAME", help=known)
    add("--samples", type=int, default=samples, metavar="N", help=f"images ({samples or 'all; 200 scenes of digits'})")
    half = "every other image: tuned to decide on, reported to report on; digits: training or held-out scenes (all)"
    add("--half", choices=HALVES, help=half)
    add("--seed", type=int, default=0, help="of every random choice (0)")
    add("--min-confidence", type=float, default=0.0, metavar="P", help="only images classified correctly with p >= P")
    add("--squash", action="store_true", help="resize both sides to the model's size; no centre crop")
    add("--device", help="such as cpu or cuda (a GPU if there is one)")
    add("--step", type=int, metavar="PX", help="pixels of a step of insertion and deletion (1/28 of the image)")
    add("--batch-size", type=int, default=32, metavar="N", help="perturbed copies in the model at once (32)")
    add("--workers", type=int, default=1, metavar="N", help="processes, which share the CPU's cores (1)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="for tables and figures (output)")
    own = parser.add_argument_group("input of a model that does not tell its own")
    own.add_argument("--size", type=int, metavar="PX", help="side of the centre crop (one that the model takes)")
    own.add_argument("--resize", type=int, metavar="PX", help="shorter side before the crop (as --size, if given)")
    own.add_argument("--mean", type=float, nargs="+", metavar="X", help="of each channel (ImageNet's)")
    own.add_argument("--std", type=float, nargs="+", metavar="X", help="of each channel (ImageNet's)")
    return parser
