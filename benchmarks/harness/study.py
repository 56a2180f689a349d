"""The command line of a study of candidates."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from benchmarks.harness.arguments import make_parser
from benchmarks.harness.measures import COLUMNS, METRICS, check_metrics
from benchmarks.harness.report import print_report
from benchmarks.harness.runner import Evaluate, choose_tasks, run
from holistic_cam_plugin.errors import UsageError, near_matches

__all__ = ["check_study", "make_study_parser", "run_study"]


def make_study_parser(description: str | None, candidates: Mapping[str, object]) -> argparse.ArgumentParser:
    """Build a parser with the arguments of a study."""
    parser = make_parser(description)
    add = parser.add_argument
    add("--metrics", nargs="+", default=["ins", "del", "epg"], help=", ".join(METRICS))
    add("--candidates", nargs="+", default=list(candidates), metavar="NAME", help="; ".join(candidates))
    return parser


def check_study(arguments: argparse.Namespace, candidates: Mapping[str, object]) -> None:
    """Raise UsageError for an unknown metric or candidate."""
    check_metrics(arguments.metrics)
    for given in arguments.candidates:
        if given not in candidates:
            known = "; ".join(candidates)
            raise UsageError(f"no candidate {given!r}{near_matches(given, candidates)}; known: {known}")


def run_study(make: Callable[[argparse.Namespace], Evaluate], arguments: argparse.Namespace, name: str) -> None:
    """Evaluate the candidates, and print the table; arguments and errors as in `run`."""
    path = run(make, arguments, choose_tasks(arguments), COLUMNS, name)
    print_report([path], arguments.model, reference=arguments.candidates[0])
