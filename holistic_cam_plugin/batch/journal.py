"""A CSV file that survives a kill at any moment: the only writer of tables that grow.

What belongs together, such as all rows of an image, is a unit: a block of rows that an empty line closes, forced to
the disk. The first block is the line of the columns' names. A unit without rows is an empty line alone. Readers of CSV
skip these lines. A kill can tear the last block; it lacks its empty line, so it is left out and, when the table goes
on, cut off.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from holistic_cam_plugin.errors import UsageError

__all__ = ["Journal", "Row", "Unit", "header", "read_rows", "read_units"]

Row = Mapping[str, object]  # by column


class Journal:
    """A table that grows unit by unit, from where it ends; a context manager.

    Args:
        path: of the CSV.
        columns: of every row.

    Attributes:
        units: how many it holds, also those without rows.

    Raises:
        UsageError: the file is another table.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = columns
        first = header(columns)
        self._file: BinaryIO = path.open("a+b")
        self._file.seek(0)
        found = self._file.read(len(first))
        if not first.startswith(found):
            self._file.close()
            raise _other_table(path)
        lengths = [len(block) for block in _blocks(self._file)]
        self.units = len(lengths)
        if found == first:
            self._file.truncate(len(first) + sum(lengths))
        else:
            self._file.truncate(0)
            self._write(first)

    def append(self, rows: Iterable[Row]) -> None:
        """Add a unit's rows, on the disk when this returns. Missing values and NaN are empty; floats have six digits.

        Raises:
            ValueError: a value without a column.
        """
        self._write(b"".join(_line(row, self.columns) for row in rows) + b"\n")
        self.units += 1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def _write(self, block: bytes) -> None:
        self._file.write(block)
        self._file.flush()
        os.fsync(self._file.fileno())


class Unit(NamedTuple):
    """A whole unit, and where its block lies in the file, in bytes."""

    rows: list[dict[str, str]]
    offset: int
    length: int


def read_units(path: Path, columns: Sequence[str] | None = None) -> Iterator[Unit]:
    """The whole units of a table, one in memory at a time, also while it grows.

    Args:
        columns: those that it must have; None: whatever it has.

    Raises:
        UsageError: the file is another table, or not one of a `Journal`.
    """
    with path.open("rb") as file:
        names, closing = file.readline(), file.readline()
        if not closing:
            return  # torn in its first line
        found = next(csv.reader([names.decode()]))
        if closing != b"\n" or (columns is not None and found != list(columns)):
            raise _other_table(path)
        offset = len(names + closing)
        for block in _blocks(file):
            yield Unit(list(csv.DictReader(io.StringIO(block.decode(), newline=""), found)), offset, len(block))
            offset += len(block)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, also of one that is still growing or was torn.

    Raises:
        UsageError: no such file, or not one of a `Journal`.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    return [row for unit in read_units(path) for row in unit.rows]


def header(columns: Sequence[str]) -> bytes:
    """The block that a table begins with."""
    return _line(dict(zip(columns, columns, strict=True)), columns) + b"\n"


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The blocks that are closed, from here on. Within quotes an empty line is a part of a value."""
    lines: list[bytes] = []
    quotes = 0
    for line in file:
        lines.append(line)
        quotes += line.count(b'"')
        if line == b"\n" and quotes % 2 == 0:
            yield b"".join(lines)
            lines, quotes = [], 0


def _line(row: Row, columns: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    # Some versions of Python quote a carriage return only where it belongs to the line's ending.
    writer = csv.DictWriter(text, columns, lineterminator="\r\n", restval="")
    writer.writerow({column: _text(value) for column, value in row.items()})
    return text.getvalue().removesuffix("\r\n").encode() + b"\n"


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _other_table(path: Path) -> UsageError:
    return UsageError(
        f"{path} is another table, of other columns or another form: move it away, or choose another --output"
    )
