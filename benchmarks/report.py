"""Print the tables of CSV files: `python -m benchmarks.report TABLE.csv [TABLE.csv ...]`.

Several tables of the same model are joined, such as one of fidelity and one of localisation. Figures are in percent,
with 95 % bootstrap intervals. The second table compares every method with a reference on the same images; a difference
is significant if its interval does not contain 0.

--rewrite generates tables of READMEs again from the CSV files that they name; see `benchmarks/harness/markdown.py`.
Text between `<!-- cost: latency.csv ... -->` and `<!-- end -->` is replaced by the tables of latency_report.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import few_scales, report_opening, throughput
from benchmarks.gradient_variance import make_variance_table
from benchmarks.harness.markdown import Labels, Source, make_method_table, rewrite_tables
from benchmarks.harness.ranks import make_gap_table, make_rank_table
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import run_main
from benchmarks.harness.table_file import read_rows
from benchmarks.latency_report import make_cost_table, make_latency_tables
from benchmarks.pareto_report import make_pareto_table
from benchmarks.sanity import EMPRT, make_emprt_table, make_similarity_table
from benchmarks.zoo import table as zoo_table

__all__ = ["rewrite_page"]

ROOT = Path(__file__).parents[1]
_COST = re.compile(r"<!-- cost:(?P<spec>[^>]*?)-->.*?<!-- end -->", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    """Print or rewrite tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE.csv")
    parser.add_argument("--model", default="", help="name of the model, for headings and the paper's figures")
    parser.add_argument("--reference", default="Holistic-CAM", metavar="NAME", help="method to compare with")
    parser.add_argument("--common", action="store_true", help="use only images for which the reference has a value")
    parser.add_argument("--rewrite", nargs="+", type=Path, default=[], metavar="FILE.md", help="READMEs to rewrite")
    arguments = parser.parse_args(argv)
    if not arguments.tables and not arguments.rewrite:
        parser.error("name a TABLE.csv, or --rewrite FILE.md")
    for path in arguments.rewrite:
        path.write_text(rewrite_page(path.read_text(encoding="utf-8"), ROOT), encoding="utf-8")
    if arguments.tables:
        print_report(arguments.tables, arguments.model, arguments.reference, arguments.common)


def rewrite_page(text: str, root: Path = ROOT) -> str:
    """Generate the tables of a README again from the sources that they name.

    Args:
        root: folder to which the sources are relative.

    Raises:
        UsageError: a source does not exist or does not contain what the table shows.
    """
    text = _COST.sub(lambda found: _make_cost_tables(found["spec"], root), text)
    return rewrite_tables(text, root, _make_table)


def _make_cost_tables(spec: str, root: Path) -> str:
    """Make all tables of latency files, between their comments."""
    return f"<!-- cost:{spec}-->\n\n{make_latency_tables(Source.of(spec, root).paths)}\n\n<!-- end -->"


def _make_table(source: Source, labels: Labels) -> str:
    """Make one table; the columns of its file determine its kind."""
    with source.paths[0].open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    if "unranked" in source.options:
        return make_rank_table(source.paths, source.options["unranked"], "common" in source.options)
    if "behind" in source.options:
        costs = {name: candidate.count_pixels() for name, candidate in few_scales.CANDIDATES.items()}
        return make_gap_table(source.paths, source.options["behind"], costs)
    if "unit" in source.options:
        return make_pareto_table(source.paths, source.options["unit"], source.options["reference"])
    if "procedure" in columns:
        return make_cost_table(source, labels)
    if "page_bytes" in columns:
        return report_opening.make_table(source.paths[0])
    if "outcome" in columns:
        return zoo_table.make_table(source.paths, source.options["show"])
    if "processes" in columns:
        return throughput.make_table(source.paths[0])
    if "randomized" not in columns and "variance_p50" not in columns:
        return make_method_table(source, labels)
    rows = [row for path in source.paths for row in read_rows(path)]
    rows = [row for row in rows if all(row[key] == value for key, value in source.options.items())]
    if source.options.get("kind") == EMPRT:
        return make_emprt_table(rows)
    return (make_similarity_table if "randomized" in columns else make_variance_table)(rows)


if __name__ == "__main__":
    run_main(main)
