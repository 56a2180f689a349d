"""Tables that grow row by row and survive a kill, with the parameters of the run in a JSON file beside them.

A table is a CSV file. The rows of an image form a unit: they are written at once and closed by an empty line, which CSV
readers skip. A unit that a kill left unfinished lacks that line: readers leave it out, and the next run cuts it off.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from holistic_cam_plugin.errors import UsageError, check_regular
from holistic_cam_plugin.files import write_whole

__all__ = ["Row", "TableFile", "read_rows"]

Row = Mapping[str, object]  # by column


class TableFile:
    """A table that can only be continued with the same parameters; a context manager.

    Args:
        path: CSV file; the parameters are stored under the same name with `.json`.
        columns: columns of the table.
        parameters: everything that the values depend on, serialisable as JSON.

    Attributes:
        units: number of units in the table, including those without rows.

    Raises:
        UsageError: the file was written with other or unknown parameters, has other columns, or is damaged.
    """

    def __init__(self, path: Path, columns: Sequence[str], parameters: Mapping[str, object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_regular(path)
        _check_parameters(path, parameters)
        self.columns = columns
        found = list(_read_units(path)) if path.exists() else []
        if found and found[0].rows != [list(columns)]:
            raise UsageError(f"{path} has other columns: move it away, or choose another --output")
        self._file = path.open("ab")
        self._file.truncate(found[-1].end if found else 0)
        self.units = len(found) - 1
        if not found:
            self.append([dict(zip(columns, columns, strict=True))])

    def append(self, rows: Iterable[Row]) -> None:
        """Append a unit; it is on the disk when this returns. Missing values and NaN are empty, floats have six digits.

        Raises:
            ValueError: a row has a value without a column.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writerows({column: _format_value(value) for column, value in row.items()} for row in rows)
        self._file.write(f"{text.getvalue()}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.units += 1

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read all rows of a table; it may still be growing, and its last unit may be unfinished.

    Raises:
        UsageError: the file does not exist, was not written by a `TableFile`, or is damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    header, *units = list(_read_units(path)) or [_Unit([[]], 0)]
    return [dict(zip(header.rows[0], fields, strict=True)) for unit in units for fields in unit.rows]


class _Unit(NamedTuple):
    rows: list[list[str]]
    end: int  # byte of the file


def _read_units(path: Path) -> Iterator[_Unit]:
    """Yield the finished units; the first one is the line of column names."""
    end = 0
    header: list[str] | None = None
    rows: list[list[str]] = []

    def read_lines() -> Iterator[str]:
        nonlocal end
        with path.open("rb") as file:
            for line in file:
                end += len(line)
                if line.endswith(b"\n"):
                    yield line.decode(errors="replace")

    for fields in csv.reader(read_lines()):
        if not fields and (header or rows):
            header = header or rows[0]
            yield _Unit(rows, end)
            rows = []
        elif len(fields) == len(header or fields) > 0 and (header or not rows):
            rows.append(fields)
        else:
            raise UsageError(f"{path} is a different table, or damaged before byte {end}: move it away")


def _format_value(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return " ".join(str(value).splitlines())


def _check_parameters(path: Path, parameters: Mapping[str, object]) -> None:
    """Store the parameters of a new table, or compare them with those of an existing one."""
    text = json.dumps(parameters, indent=2, sort_keys=True, default=str) + "\n"
    beside = path.with_suffix(".json")
    if beside.exists():
        changed = _find_changes(beside, json.loads(text))
        if changed:
            raise UsageError(
                f"{path} was written with other values of {', '.join(changed)}: delete it and {beside.name}, or choose "
                "another --output"
            )
    elif path.exists():
        raise UsageError(
            f"{path} exists without {beside.name}, so its parameters are unknown: move it away, or choose another "
            "--output"
        )
    else:
        write_whole(path.parent, beside.name, [text.encode()])


def _find_changes(beside: Path, new: Mapping[str, object]) -> list[str]:
    """Names of the parameters whose values differ from those in the file."""
    try:
        old = dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"cannot read {beside}: {error}. Choose another --output") from error
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
