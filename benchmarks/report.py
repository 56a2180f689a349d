"""The tables of one or several CSVs again: `python -m benchmarks.report TABLE.csv [TABLE.csv ...]`.

Several tables of the same model become one, such as one of the fidelity and one of the localisation. Figures are in
percent, with 95 % bootstrap intervals. The second table compares every method with a reference on the same images: an
interval that does not hold 0 is a difference that these images show.

--rewrite makes the tables of READMEs anew that name the CSV they come from; `benchmarks/harness/markdown.py` says how.
What stands between `<!-- cost: latency.csv ... -->` and `<!-- end -->` is replaced by the tables of latency_report.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gradient_variance import variance_table
from benchmarks.harness.markdown import Labels, Source, method_table, rewritten
from benchmarks.harness.ranks import rank_table
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import command
from benchmarks.latency_report import cost_table, latency_tables
from benchmarks.pareto_report import pareto_table
from benchmarks.report_opening import table as opening_table
from benchmarks.sanity import EMPRT, emprt_table, similarity_table
from benchmarks.throughput import table as throughput_table
from holistic_cam_plugin.batch.journal import read_rows

__all__ = ["made_anew"]

ROOT = Path(__file__).parents[1]
_COST = re.compile(r"<!-- cost:(?P<spec>[^>]*?)-->.*?<!-- end -->", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    """Print or rewrite the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE.csv")
    parser.add_argument("--model", default="", help="the model's name, for the headings and the paper's figures")
    parser.add_argument("--reference", default="Holistic-CAM", metavar="NAME", help="a method (Holistic-CAM)")
    parser.add_argument("--common", action="store_true", help="only the images for which the reference has a value")
    parser.add_argument("--rewrite", nargs="+", type=Path, default=[], metavar="FILE.md", help="READMEs to rewrite")
    arguments = parser.parse_args(argv)
    if not arguments.tables and not arguments.rewrite:
        parser.error("name a TABLE.csv, or --rewrite FILE.md")
    for path in arguments.rewrite:
        path.write_text(made_anew(path.read_text(encoding="utf-8"), ROOT), encoding="utf-8")
    if arguments.tables:
        print_report(arguments.tables, arguments.model, arguments.reference, arguments.common)


def made_anew(text: str, root: Path = ROOT) -> str:
    """A README with the tables that name their source made of it again.

    Args:
        root: the folder to which the sources are relative.

    Raises:
        UsageError: a source that does not exist or does not hold what the table shows.
    """
    text = _COST.sub(lambda found: _cost(found["spec"], root), text)
    return rewritten(text, root, _table)


def _cost(spec: str, root: Path) -> str:
    """All the tables of latency files, between their comments."""
    return f"<!-- cost:{spec}-->\n\n{latency_tables(Source.of(spec, root).paths)}\n\n<!-- end -->"


def _table(source: Source, labels: Labels) -> str:
    """One table; the columns of its file tell what it is of."""
    with source.paths[0].open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    if "unranked" in source.options:
        return rank_table(source.paths, source.options["unranked"])
    if "unit" in source.options:
        return pareto_table(source.paths, source.options["unit"], source.options["reference"])
    if "procedure" in columns:
        return cost_table(source, labels)
    if "page_bytes" in columns:
        return opening_table(source.paths[0])
    if "processes" in columns:
        return throughput_table(source.paths[0])
    if "randomized" not in columns and "variance_p50" not in columns:
        return method_table(source, labels)
    rows = [row for path in source.paths for row in read_rows(path)]
    rows = [row for row in rows if all(row[key] == value for key, value in source.options.items())]
    if source.options.get("kind") == EMPRT:
        return emprt_table(rows)
    return (similarity_table if "randomized" in columns else variance_table)(rows)


if __name__ == "__main__":
    command(main)
