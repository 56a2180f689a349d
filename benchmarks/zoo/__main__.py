"""Which models of timm, transformers and torchvision are explained, with random weights.

Each model is built in a process of its own, `explainable` is called, and `ClassHolisticCAM` with what it found. An
oracle that does not use the package tells whether the maps of every layer lie over the picture. One row per model is
appended to the library's table; running the same command again goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness.runner import run_main
from benchmarks.harness.table_file import TableFile, read_rows
from benchmarks.zoo.judge import COLUMNS, RIGHT
from benchmarks.zoo.models import LIBRARIES, list_names, list_versions
from benchmarks.zoo.processes import judge_all
from benchmarks.zoo.table import make_exceptions, make_summary
from holistic_cam_plugin.errors import UsageError

ALL = "all"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = _make_parser().parse_args(argv)
    libraries = LIBRARIES if arguments.library == ALL else (arguments.library,)
    tables = [arguments.output / f"{library}.csv" for library in libraries]
    for library, path in zip(libraries, tables, strict=True):
        names = list_names(library)
        if arguments.only is not None:
            if libraries != LIBRARIES and (unknown := [name for name in arguments.only if name not in names]):
                raise UsageError(f"{library} has no {', '.join(unknown)}; known: {', '.join(names)}")
            names = [name for name in names if name in arguments.only]
        _fill_table(path, library, names, arguments)
    print(make_summary(tables), make_exceptions(tables), sep="\n\n")


def _fill_table(path: Path, library: str, names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Append the rows of the models that have none."""
    with TableFile(path, COLUMNS, list_versions(library)) as table:
        known = {row["name"] for row in read_rows(path)}
        rest = [name for name in names if name not in known]
        progress = tqdm(total=len(names), initial=len(names) - len(rest), desc=library, unit="model")
        for verdict in judge_all(library, rest, arguments.workers, arguments.seconds, arguments.gigabytes):
            table.append([asdict(verdict)])
            progress.update()
            if verdict.outcome != RIGHT:
                tqdm.write(f"{verdict.name}: {verdict.outcome}: {verdict.reason}")
        progress.close()


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--library", choices=[*LIBRARIES, ALL], default=ALL, help="(all)")
    only = "modules of timm, classes of transformers, models of torchvision (all)"
    add("--only", nargs="+", metavar="NAME", help=only)
    add("--workers", type=int, default=1, metavar="N", help="models at a time (1)")
    add("--seconds", type=float, default=1800, metavar="S", help="time limit per model (1800)")
    add("--gigabytes", type=float, default=14, metavar="GB", help="memory limit per model (14)")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER", help="folder of the tables (output)")
    return parser


if __name__ == "__main__":
    run_main(main)
