"""Tables of the README: how many models of each library are explained, which are not, and all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.markdown import format_table
from benchmarks.harness.table_file import read_rows
from benchmarks.zoo.judge import OUTCOMES, RIGHT

__all__ = ["make_exceptions", "make_models", "make_summary", "make_table"]


def make_table(paths: Sequence[Path], kind: str) -> str:
    """Make a table of the kind that a README names: `summary`, `exceptions` or `models`."""
    return {"summary": make_summary, "exceptions": make_exceptions, "models": make_models}[kind](paths)


def make_summary(paths: Sequence[Path]) -> str:
    """Count the outcomes of each library."""
    lines = []
    for path in paths:
        versions = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        outcomes = Counter(row["outcome"] for row in read_rows(path))
        counts = [str(outcomes[outcome]) for outcome in OUTCOMES]
        lines.append([f"{path.stem} {versions[path.stem]}", str(outcomes.total()), *counts])
    return format_table(["library", "models", *OUTCOMES], lines)


def make_exceptions(paths: Sequence[Path]) -> str:
    """List the models that are not right, and why."""
    lines = [
        [path.stem, _name(row), row["outcome"], _escape(row["reason"])]
        for path in paths
        for row in read_rows(path)
        if row["outcome"] != RIGHT
    ]
    return format_table(["library", "model", "outcome", "what it says"], lines)


def make_models(paths: Sequence[Path]) -> str:
    """List all models, by name."""
    header = ["model", "outcome", "size", "other sizes", "layers", "distance", "passes", "explainable, s", "map, s"]
    rows = sorted((row for path in paths for row in read_rows(path)), key=lambda row: row["name"])
    return format_table(header, [_make_line(row) for row in rows])


def _make_line(row: Mapping[str, str]) -> list[str]:
    distances = [float(word) for key in ("distances", "other_distances") for word in row[key].split()]
    steps = {"": "", "None": "tiles", "1": "any"}
    sizes = steps.get(row["multiple_of"], f"steps of {row['multiple_of']}")
    layers = " ".join(f"`{name}`" for name in row["layers"].split())
    distance = f"{max(distances):.2f}" if distances else ""
    times = [row["passes"], row["explainable"], row["map"]]
    return [_name(row), row["outcome"], row["size"], sizes, layers, distance, *times]


def _name(row: Mapping[str, str]) -> str:
    return row["model"] or row["name"]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
