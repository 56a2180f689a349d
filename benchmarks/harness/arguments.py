"""Command-line arguments shared by the experiments."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.harness.methods import CLASS_MASKED, DEFAULT_METHODS, EXPLAINERS, MASKED

__all__ = ["HALVES", "make_parser"]

HALVES = ("tuned", "reported")


def make_parser(description: str | None, samples: int | None = None) -> argparse.ArgumentParser:
    """Build a parser with the common arguments.

    Args:
        description: docstring of the experiment.
        samples: default number of images; None: all.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="resnet50", help="as in holistic-cam --model (resnet50)")
    add("--weights", type=Path, metavar="FILE", help="state dict (the model's own weights)")
    add("--images", default="digits", help="folder of images, or digits: the bundled scenes, with boxes (digits)")
    add("--digits", type=int, choices=(1, 2), default=1, help="digits in a bundled scene; the first is explained (1)")
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="CSV: file, class_index[, x0, y0, x1, y1] (IMAGES/labels.csv)",
    )
    add("--boxes", type=Path, metavar="FOLDER", help="ImageNet's XML files with boxes")
    add("--masks", type=Path, metavar="FOLDER", help="PNG masks of the objects, named like the images, white inside")
    add("--grid", action="store_true", help="measure localisation in 2x2 grids of the images")
    add("--layers", nargs="+", metavar="NAME", help="target layers (the last layer of each stage)")
    known = ", ".join([*EXPLAINERS, f"NAME{MASKED}", f"NAME{CLASS_MASKED}"])
    add("--methods", nargs="+", default=list(DEFAULT_METHODS), metavar="NAME", help=known)
    add(
        "--samples",
        type=int,
        default=samples,
        metavar="N",
        help=f"number of images ({samples or 'all, or 200 scenes of digits'})",
    )
    half = "every other image: tuned for decisions, reported for reports; of digits, training or held-out scenes (all)"
    add("--half", choices=HALVES, help=half)
    add("--seed", type=int, default=0, help="seed of all random choices (0)")
    add(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="only images classified correctly with probability >= P",
    )
    add("--squash", action="store_true", help="resize both sides to the model's size, without a centre crop")
    add("--device", help="such as cpu or cuda (a GPU if available)")
    add("--step", type=int, metavar="PX", help="pixels per step of insertion and deletion (1/28 of the image)")
    add("--batch-size", type=int, default=32, metavar="N", help="perturbed copies per batch (32)")
    add("--workers", type=int, default=1, metavar="N", help="processes; they share the CPU's cores (1)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="folder of tables and figures (output)")
    own = parser.add_argument_group("input of a model that does not define its own")
    own.add_argument("--size", type=int, metavar="PX", help="side of the centre crop (a size that the model accepts)")
    own.add_argument("--resize", type=int, metavar="PX", help="shorter side before the crop (--size, if given)")
    own.add_argument("--mean", type=float, nargs="+", metavar="X", help="mean of each channel (ImageNet's)")
    own.add_argument("--std", type=float, nargs="+", metavar="X", help="standard deviation, likewise")
    return parser
