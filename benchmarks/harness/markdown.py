"""Tables of READMEs, generated from the CSV files that a comment above the table names.

The comment is directly above the table. Files are relative to the repository's root:

    <!-- table: benchmarks/results/net/table1.csv layer=layer4 columns=ins,del,over_all -->

Files may contain wildcards. Several files are joined; of several values, the first file's counts. Options (quote values
that contain spaces):

* `rows=`, `columns=`: items separated by commas. An item is a method, a layer or a metric (a column of the CSV), or
  several of them joined by colons: `columns=layer2:over_all,layer4:epg`. `*` stands for all methods that are not named.
  Defaults: `rows=*`, and as columns all metrics that have values.
* `layer=`, `method=`, `metric=`: apply to the whole table.
* `minus="Holistic-CAM"`: cells are this method minus the cell's method, on the same images; its own row has its means.
* `common="Holistic-CAM"`: only images for which this method has the metric.
* `intervals=no`: means without intervals.
* `unit=NAME reference=NAME`: a table of `pareto`; the time of the setting NAME is 1.
* `unranked=NAME`: a table of candidates by mean rank; candidates whose names start with NAME get no rank.
* `show=summary`, `show=exceptions` or `show=models`: a table of `zoo`.
* `behind=NAME`: a table of `few_scales`, candidates minus the candidate NAME.

Labels may be changed as long as they contain the layer and the method of their row or column. Cells are in percent.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.methods import NO_LAYER
from benchmarks.harness.report import HEADINGS, Values, format_difference, format_mean, read_values, restrict
from holistic_cam_plugin.errors import UsageError

__all__ = ["Labels", "Source", "format_table", "make_method_table", "rewrite_tables"]

_TABLE = re.compile(r"(?P<comment><!-- table:(?P<spec>[^>]*?)-->\n)(?P<table>(?:\|[^\n]*\n)*)")

Item = dict[str, str]  # by layer, method or metric: what a row or column shows


class Source(NamedTuple):
    """The files and options of a comment."""

    paths: list[Path]
    options: dict[str, str]

    @classmethod
    def of(cls, spec: str, root: Path) -> Source:
        """Parse a comment's text.

        Raises:
            UsageError: a file does not exist.
        """
        words = shlex.split(spec)
        names = [word for word in words if "=" not in word]
        paths = [path for name in names for path in sorted(root.glob(name)) or [root / name]]
        for path in paths:
            if not path.is_file():
                raise UsageError(f"the source of a table, {path}, does not exist")
        return cls(paths, dict(word.split("=", 1) for word in words if "=" in word))


class Labels(NamedTuple):
    """The first column and the header of a table in the text; empty for a new table."""

    corner: str
    rows: list[str]
    columns: list[str]

    @classmethod
    def of(cls, table: str) -> Labels:
        """Parse a table in Markdown."""
        lines = [[part.strip() for part in line.strip().strip("|").split("|")] for line in table.splitlines()]
        header, rows = (lines[0], lines[2:]) if lines else ([""], [])
        return cls(header[0], [row[0] for row in rows], header[1:])


def rewrite_tables(text: str, root: Path, render: Callable[[Source, Labels], str]) -> str:
    """Generate every table that names its source again."""

    def replace(found: re.Match[str]) -> str:
        table = render(Source.of(found["spec"], root), Labels.of(found["table"]))
        return f"{found['comment']}{table}\n"

    return _TABLE.sub(replace, text)


def make_method_table(source: Source, labels: Labels) -> str:
    """Make a table of means or differences over the images.

    Raises:
        UsageError: a row or column is not a layer, method or metric of the files.
    """
    options = source.options
    values = read_values(source.paths)
    if "common" in options:
        values = restrict(values, options["common"])
    fixed: Item = {key: options[key] for key in ("layer", "method", "metric") if key in options}
    known = {
        "metric": [metric for metric in HEADINGS if any(metric in found for found in values.values())],
        "layer": list(dict.fromkeys(layer for layer, _ in values)),
        "method": list(dict.fromkeys(method for _, method in values)),
    }
    reference = options.get("minus")
    shown = [metric for metric in known["metric"] if reference is None or metric != "tied"]
    columns = _parse_items(options.get("columns", ",".join(shown)), known, reference)
    rows = _parse_items(options.get("rows", "*"), known, reference)
    body = [(row, [_make_cell(values, {**fixed, **row, **column}, options) for column in columns]) for row in rows]
    body = [(row, cells) for row, cells in body if any(cells)]
    header = _choose_labels(columns, known, labels.columns)
    names = _choose_labels([row for row, _ in body], known, labels.rows)
    lines = [[name, *cells] for name, (_, cells) in zip(names, body, strict=True)]
    return format_table([labels.corner, *header], lines)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def _make_cell(values: Values, item: Mapping[str, str], options: Mapping[str, str]) -> str:
    try:
        layer, method, metric = item["layer"], item["method"], item["metric"]
    except KeyError as error:
        raise UsageError(f"the options of a table do not define the {error} of a cell: {dict(options)}") from None
    intervals = options.get("intervals") != "no"
    found = values.get((layer, method)) or values.get((NO_LAYER, method)) or {}
    reference = options.get("minus", method)
    if method == reference:
        return format_mean(found, metric, intervals)
    return format_difference(values[layer, reference], found, metric, intervals)


def _parse_items(text: str, known: Mapping[str, Sequence[str]], reference: str | None) -> list[Item]:
    """Parse the option `rows` or `columns`."""
    items: list[Item] = []
    named = [part for part in text.split(",") if part != "*"]
    for part in text.split(","):
        if part == "*":
            items += [{"method": method} for method in known["method"] if method not in (*named, reference)]
        else:
            items.append(dict(_find_field(word, known) for word in part.split(":")))
    return items


def _find_field(word: str, known: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    for field, names in known.items():
        if word in names:
            return field, word
    raise UsageError(f"{word!r} is not a metric, layer or method of the table's files")


def _choose_labels(items: Sequence[Item], known: Mapping[str, Sequence[str]], old: Sequence[str]) -> list[str]:
    """Keep old labels that match their item, and make new ones for the others."""
    if len(old) != len(items):
        old = [""] * len(items)
    new = [", ".join(HEADINGS.get(name, name) for name in item.values()) for item in items]
    return [theirs if _matches(theirs, item, known) else own for item, theirs, own in zip(items, old, new, strict=True)]


def _matches(label: str, item: Item, known: Mapping[str, Sequence[str]]) -> bool:
    """Whether a label contains the item's layer and method, and no longer name, such as Grad-CAM++ for Grad-CAM."""
    for field in ("layer", "method"):
        mentioned = [name for name in known[field] if name in label]
        if field in item and max(mentioned, key=len, default="") != item[field]:
            return False
    return bool(label)
