"""The tables of one or several CSVs again: `python -m benchmarks.report TABLE.csv [TABLE.csv ...]`.

Several tables of the same model become one, such as one of the fidelity and one of the localisation. Figures are in
percent, with 95 % bootstrap intervals. The second table compares every method with a reference on the same images: an
interval that does not hold 0 is a difference that these images show.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.report import print_report
from benchmarks.harness.runner import command


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE.csv")
    parser.add_argument("--model", default="", help="the model's name, for the headings and the paper's figures")
    parser.add_argument("--reference", default="Holistic-CAM", metavar="NAME", help="a method (Holistic-CAM)")
    parser.add_argument("--common", action="store_true", help="only the images for which the reference has a value")
    arguments = parser.parse_args(argv)
    print_report(arguments.tables, arguments.model, arguments.reference, arguments.common)


if __name__ == "__main__":
    command(main)
