"""A CSV file that survives a kill at any moment: the only writer of tables that grow.

What belongs together, such as all rows of an image, is a unit: a block of rows that an empty line closes, forced to
the disk. The first block is the line of the columns' names. A unit without rows is an empty line alone. Readers of CSV
skip these lines. A kill can tear the last block; it lacks its empty line, so it is left out and, when the table goes
on, cut off.

A block is whole if its rows, written again, give the same bytes. What a broken disk or an editor made of the others is
left out; reading goes on after their next empty line.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from holistic_cam_plugin.errors import UsageError, check_regular

__all__ = ["Journal", "Row", "Unit", "header", "read_rows", "read_units", "text"]

Row = Mapping[str, object]  # by column

# Of a value that holds line ends, in bytes: a quote that is open for longer was never meant. Paths have 4096 at most.
LONGEST_VALUE = 2**16


class Journal:
    """A table that grows unit by unit, from where it ends or is damaged; a context manager.

    Args:
        path: of the CSV.
        columns: of every row.

    Attributes:
        units: how many it holds, also those without rows.

    Raises:
        UsageError: the file is another table.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        check_regular(path)
        self.columns = columns
        first = header(columns)
        self._file: BinaryIO = path.open("a+b")
        self._file.seek(0)
        found = self._file.read(len(first))
        if not first.startswith(found):
            self._file.close()
            raise _other_table(path)
        end, self.units = len(first), 0
        for unit in _units(self._file, columns, end):
            if unit.offset > end:
                break
            end, self.units = end + unit.length, self.units + 1
        if found == first:
            self._file.truncate(end)
        else:
            self._file.truncate(0)
            self._write(first)

    def append(self, rows: Iterable[Row]) -> None:
        """Add a unit's rows, on the disk when this returns; the values as `text` gives them, missing ones empty.

        Raises:
            ValueError: a value without a column.
        """
        self._write(_block(rows, self.columns))
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


def read_units(
    path: Path, columns: Sequence[str] | None = None, trusted: Callable[[list[dict[str, str]]], bool] | None = None
) -> Iterator[Unit]:
    """The whole units of a table, one in memory at a time, also while it grows; what is damaged or torn is left out.

    Args:
        columns: those that it must have; None: whatever it has.
        trusted: whether a unit's rows are what was once written; a unit for which they aren't is damaged. Where one is
            trusted, the line of the columns' names may be damaged.

    Raises:
        UsageError: the file is another table, or not one of a `Journal`.
    """
    check_regular(path)
    with path.open("rb") as file:
        names, closing = file.readline(), file.readline()
        if not closing and (columns is None or header(columns).startswith(names)):
            return  # torn in its first line
        found = _fields(names)
        known = closing == b"\n" and len(found) == 1 and (columns is None or found[0] == list(columns))
        if known or trusted is not None:
            for unit in _units(file, columns or found[0], file.tell() if known else len(names)):
                if trusted is None or trusted(unit.rows):
                    known = True
                    yield unit
    if not known:
        raise _other_table(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, also of one that is still growing or was torn.

    Raises:
        UsageError: no such file, not one of a `Journal`, or damaged before its end.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    units = list(read_units(path))
    for before, after in pairwise(units):
        if before.offset + before.length < after.offset:
            raise UsageError(f"{path} is damaged between bytes {before.offset + before.length} and {after.offset}")
    return [row for unit in units for row in unit.rows]


def header(columns: Sequence[str]) -> bytes:
    """The block that a table begins with."""
    return _block([dict(zip(columns, columns, strict=True))], columns)


def text(value: object) -> str:
    """A value as it is written: floats with six digits, NaN empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _units(file: BinaryIO, columns: Sequence[str], offset: int) -> Iterator[Unit]:
    """The whole units from this byte on."""
    while True:
        file.seek(offset)
        block, first = _read_block(file)
        if not first:
            return  # no empty line any more
        rows = [dict(zip(columns, fields, strict=False)) for fields in _fields(block)[:-1]]
        if _block(rows, columns) == block:
            yield Unit(rows, offset, len(block))
            offset += len(block)
        else:
            offset += first


def _read_block(file: BinaryIO) -> tuple[bytes, int]:
    """The lines up to an empty one that is not within quotes, and the length up to the first empty one; 0: none."""
    lines: list[bytes] = []
    length = first = quotes = quoted = 0
    for line in file:
        lines.append(line)
        length += len(line)
        quotes += line.count(b'"')
        quoted = quoted + len(line) if quotes % 2 else 0
        if line == b"\n":
            first = first or length
        if first and ((line == b"\n" and quotes % 2 == 0) or quoted > LONGEST_VALUE):
            break
    return b"".join(lines), first


def _fields(lines: bytes) -> list[list[str]]:
    """The lines' values; none if they are no CSV."""
    try:
        return list(csv.reader(io.StringIO(lines.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return []


def _block(rows: Iterable[Row], columns: Sequence[str]) -> bytes:
    return b"".join(_line(row, columns) for row in rows) + b"\n"


def _line(row: Row, columns: Sequence[str]) -> bytes:
    line = io.StringIO(newline="")
    # Some versions of Python quote a carriage return only where it belongs to the line's ending.
    writer = csv.DictWriter(line, columns, lineterminator="\r\n", restval="")
    writer.writerow({column: text(value) for column, value in row.items()})
    return line.getvalue().removesuffix("\r\n").encode() + b"\n"


def _other_table(path: Path) -> UsageError:
    return UsageError(
        f"{path} is another table, of other columns or another form: move it away, or choose another --output"
    )
