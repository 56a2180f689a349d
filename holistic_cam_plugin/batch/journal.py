"""A CSV file that survives a kill at any moment; all tables that grow row by row are written here.

Rows that belong together, such as all rows of an image, form a unit: a block of rows closed by an empty line and synced
to the disk. The first block is the line of column names. A unit without rows is a single empty line. CSV readers skip
empty lines. A kill can tear only the last block: it lacks its empty line, so readers leave it out, and the next writer
cuts it off.

A block is intact if writing its rows again gives the same bytes. Blocks damaged by a broken disk or an editor are left
out; reading continues after the next empty line.
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

__all__ = ["Journal", "Row", "Unit", "encode_header", "format_value", "read_rows", "read_units"]

Row = Mapping[str, object]  # by column

# Bytes of a value with line breaks (a path has at most 4096). A quote open for longer is taken as damage.
LONGEST_VALUE = 2**16


class Journal:
    """A table that grows by units, after its last intact one; a context manager.

    Args:
        path: The CSV file.
        columns: Names of all columns.

    Attributes:
        units: Number of units in the file, including those without rows.

    Raises:
        UsageError: The file is a different table.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        check_regular(path)
        self.columns = columns
        header = encode_header(columns)
        self._file: BinaryIO = path.open("a+b")
        self._file.seek(0)
        found = self._file.read(len(header))
        if not header.startswith(found):
            self._file.close()
            raise _wrong_table_error(path)
        end, self.units = len(header), 0
        for unit in _scan_units(self._file, columns, end):
            if unit.offset > end:
                break
            end, self.units = end + unit.length, self.units + 1
        if found == header:
            self._file.truncate(end)
        else:
            self._file.truncate(0)
            self._write(header)

    def append(self, rows: Iterable[Row]) -> None:
        """Append a unit; it is on the disk when this returns. Missing values are empty.

        Raises:
            ValueError: A row has a value without a column.
        """
        self._write(_encode_block(rows, self.columns))
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
    """An intact unit, and the position of its block in the file, in bytes."""

    rows: list[dict[str, str]]
    offset: int
    length: int


def read_units(
    path: Path, columns: Sequence[str] | None = None, is_valid: Callable[[list[dict[str, str]]], bool] | None = None
) -> Iterator[Unit]:
    """Yield the intact units of a table, one at a time; the table may still be growing.

    Args:
        columns: The expected columns. None: any.
        is_valid: An additional test of a unit's rows; invalid units are left out. If any unit is valid, a damaged line
            of column names is accepted.

    Raises:
        UsageError: The file is a different table, or was not written by a `Journal`.
    """
    check_regular(path)
    with path.open("rb") as file:
        names, closing = file.readline(), file.readline()
        if not closing and (columns is None or encode_header(columns).startswith(names)):
            return  # torn in its first line
        found = _parse(names)
        known = closing == b"\n" and len(found) == 1 and (columns is None or found[0] == list(columns))
        if known or is_valid is not None:
            for unit in _scan_units(file, columns or found[0], file.tell() if known else len(names)):
                if is_valid is None or is_valid(unit.rows):
                    known = True
                    yield unit
    if not known:
        raise _wrong_table_error(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read all rows of a table; it may still be growing, and its last unit may be torn.

    Raises:
        UsageError: The file does not exist, was not written by a `Journal`, or is damaged before its end.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    units = list(read_units(path))
    for before, after in pairwise(units):
        if before.offset + before.length < after.offset:
            raise UsageError(f"{path} is damaged between bytes {before.offset + before.length} and {after.offset}")
    return [row for unit in units for row in unit.rows]


def encode_header(columns: Sequence[str]) -> bytes:
    """Return the first block of a table."""
    return _encode_block([dict(zip(columns, columns, strict=True))], columns)


def format_value(value: object) -> str:
    """Return a value as it is written: floats with six digits, NaN as an empty string."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _scan_units(file: BinaryIO, columns: Sequence[str], offset: int) -> Iterator[Unit]:
    """Yield the intact units from this byte on."""
    while True:
        file.seek(offset)
        block, first = _read_block(file)
        if not first:
            return
        rows = [dict(zip(columns, fields, strict=False)) for fields in _parse(block)[:-1]]
        if _encode_block(rows, columns) == block:
            yield Unit(rows, offset, len(block))
            offset += len(block)
        else:
            offset += first


def _read_block(file: BinaryIO) -> tuple[bytes, int]:
    """Return the lines up to an empty one outside quotes, and their length up to the first empty one (0 if none)."""
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


def _parse(lines: bytes) -> list[list[str]]:
    """Return the values of every line, or an empty list if the lines are not valid CSV."""
    try:
        return list(csv.reader(io.StringIO(lines.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return []


def _encode_block(rows: Iterable[Row], columns: Sequence[str]) -> bytes:
    return b"".join(_encode_row(row, columns) for row in rows) + b"\n"


def _encode_row(row: Row, columns: Sequence[str]) -> bytes:
    line = io.StringIO(newline="")
    # Some Python versions quote a carriage return only if the line terminator contains one.
    writer = csv.DictWriter(line, columns, lineterminator="\r\n", restval="")
    writer.writerow({column: format_value(value) for column, value in row.items()})
    return line.getvalue().removesuffix("\r\n").encode() + b"\n"


def _wrong_table_error(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a different table, with other columns or in another format: move it away, or choose another "
        "--output"
    )
