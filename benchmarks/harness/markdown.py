"""Tables of a README that name the CSV that they are made of, so that their figures can be made again.

A comment directly above a table names its files, relative to the repository's root, and what the table shows:

    <!-- table: benchmarks/results/net/table1.csv layer=layer4 columns=ins,del,over_all -->

Files may hold wildcards; several are joined, values of the first that has them. Options, for tables of the experiments
(quoted where a value holds spaces):

* `rows=`, `columns=`: what lies along the rows and the columns, parted by commas. An item is a method, a layer or a
  metric (the CSV's column), or several of them joined by colons: `columns=layer2:over_all,layer4:epg`. `*` stands for
  all the methods that are not named. Left out: `rows=*`, and all the metrics that have values as columns.
* `layer=`, `method=`, `metric=`: what is the same in the whole table.
* `minus="Holistic-CAM"`: cells are this method minus the cell's own, on the same images; its own row keeps its means.
* `common="Holistic-CAM"`: only the images of which this method has the metric.
* `intervals=no`: means alone.
* `unit=NAME reference=NAME`: instead of all this, settings of `pareto` by their time, the unit's being 1.
* `unranked=NAME`: instead of all this, candidates by their mean rank; those whose names begin so have none.

Labels are free as long as they name the layer and the method of their row or column. Cells are percent.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.methods import NO_LAYER
from benchmarks.harness.report import HEADINGS, Values, cell, difference, read_values, restricted
from holistic_cam_plugin.errors import UsageError

__all__ = ["Labels", "Source", "method_table", "rewritten", "table_text"]

_TABLE = re.compile(r"(?P<comment><!-- table:(?P<spec>[^>]*?)-->\n)(?P<table>(?:\|[^\n]*\n)*)")

Item = dict[str, str]  # layer, method, metric: those that the row or the column decides


class Source(NamedTuple):
    """What a comment says: files, and options by name."""

    paths: list[Path]
    options: dict[str, str]

    @classmethod
    def of(cls, spec: str, root: Path) -> Source:
        """The source that a comment's text describes.

        Raises:
            UsageError: a file that does not exist.
        """
        words = shlex.split(spec)
        names = [word for word in words if "=" not in word]
        paths = [path for name in names for path in sorted(root.glob(name)) or [root / name]]
        for path in paths:
            if not path.is_file():
                raise UsageError(f"{path}, the source of a table, does not exist")
        return cls(paths, dict(word.split("=", 1) for word in words if "=" in word))


class Labels(NamedTuple):
    """The first column and the header of a table as they stand in the text; empty for a new one."""

    corner: str
    rows: list[str]
    columns: list[str]

    @classmethod
    def of(cls, table: str) -> Labels:
        """The labels of a table in Markdown."""
        lines = [[part.strip() for part in line.strip().strip("|").split("|")] for line in table.splitlines()]
        header, rows = (lines[0], lines[2:]) if lines else ([""], [])
        return cls(header[0], [row[0] for row in rows], header[1:])


def rewritten(text: str, root: Path, render: Callable[[Source, Labels], str]) -> str:
    """The text with every table that names its source made anew."""

    def replaced(found: re.Match[str]) -> str:
        table = render(Source.of(found["spec"], root), Labels.of(found["table"]))
        return f"{found['comment']}{table}\n"

    return _TABLE.sub(replaced, text)


def method_table(source: Source, labels: Labels) -> str:
    """A table of means or differences over the images.

    Raises:
        UsageError: a row or column that is no layer, method or metric of the files.
    """
    options = source.options
    values = read_values(source.paths)
    if "common" in options:
        values = restricted(values, options["common"])
    fixed: Item = {key: options[key] for key in ("layer", "method", "metric") if key in options}
    known = {
        "metric": [metric for metric in HEADINGS if any(metric in found for found in values.values())],
        "layer": list(dict.fromkeys(layer for layer, _ in values)),
        "method": list(dict.fromkeys(method for _, method in values)),
    }
    reference = options.get("minus")
    shown = [metric for metric in known["metric"] if reference is None or metric != "tied"]
    columns = _items(options["columns"], known, reference) if "columns" in options else [{"metric": m} for m in shown]
    rows = _items(options.get("rows", "*"), known, reference)
    body = [(row, [_cell(values, {**fixed, **row, **column}, options) for column in columns]) for row in rows]
    body = [(row, cells) for row, cells in body if any(cells)]
    header = _labels(columns, known, labels.columns)
    names = _labels([row for row, _ in body], known, labels.rows)
    return table_text([labels.corner, *header], [[name, *cells] for name, (_, cells) in zip(names, body, strict=True)])


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def _cell(values: Values, item: Mapping[str, str], options: Mapping[str, str]) -> str:
    try:
        layer, method, metric = item["layer"], item["method"], item["metric"]
    except KeyError as error:
        raise UsageError(f"nothing says which {error} a cell of the table is of: {dict(options)}") from None
    intervals = options.get("intervals") != "no"
    found = values.get((layer, method)) or values.get((NO_LAYER, method)) or {}
    reference = options.get("minus", method)
    if method == reference:
        return cell(found, metric, intervals)
    return difference(values[layer, reference], found, metric, intervals)


def _items(text: str, known: Mapping[str, Sequence[str]], reference: str | None) -> list[Item]:
    """The rows or columns that an option names."""
    items: list[Item] = []
    named = [part for part in text.split(",") if part != "*"]
    for part in text.split(","):
        if part == "*":
            items += [{"method": method} for method in known["method"] if method not in (*named, reference)]
        else:
            items.append(dict(_field(word, known) for word in part.split(":")))
    return items


def _field(word: str, known: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    for field, names in known.items():
        if word in names:
            return field, word
    raise UsageError(f"{word!r} is no metric, layer or method of the table's files")


def _labels(items: Sequence[Item], known: Mapping[str, Sequence[str]], old: Sequence[str]) -> list[str]:
    """The old labels where they name what an item is of, else new ones."""
    if len(old) != len(items):
        old = [""] * len(items)
    new = [", ".join(HEADINGS.get(name, name) for name in item.values()) for item in items]
    return [theirs if _names(theirs, item, known) else own for item, theirs, own in zip(items, old, new, strict=True)]


def _names(label: str, item: Item, known: Mapping[str, Sequence[str]]) -> bool:
    """Whether a label holds the item's layer and method, and not a longer name such as Grad-CAM++ for Grad-CAM."""
    for field in ("layer", "method"):
        mentioned = [name for name in known[field] if name in label]
        if field in item and max(mentioned, key=len, default="") != item[field]:
            return False
    return bool(label)
