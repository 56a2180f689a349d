"""A CSV file that survives a kill at any moment.

Every image's rows are one block, closed by an empty line (readers of CSV skip it) and forced to the disk. After a kill
whatever follows the last empty line is cut off, and the run goes on with the next image. A JSON file beside it holds
the parameters, so that two different runs never mix in one table.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from holistic_cam_plugin.errors import UsageError

__all__ = ["Row", "TableFile", "read_rows"]

Row = Mapping[str, object]


class TableFile:
    """A table that grows block by block; a context manager.

    Args:
        path: the CSV; its parameters go to the same name with `.json`.
        columns: of every row.
        parameters: whatever determines the values, as JSON takes it.

    Attributes:
        blocks: how many images it holds, also those without rows.

    Raises:
        UsageError: the file holds a run with other parameters or columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], parameters: Mapping[str, object]) -> None:
        self.columns = columns
        path.parent.mkdir(parents=True, exist_ok=True)
        _claim(path, parameters)
        header = _lines([dict(zip(columns, columns, strict=True))], columns)
        old = path.read_bytes() if path.exists() else b""
        kept, blocks = _whole_blocks(old)
        if blocks and not kept.startswith(header):
            raise UsageError(f"{path} has other columns: delete it or choose another --output")
        self.blocks = max(0, blocks - 1)
        self._file: BinaryIO = path.open("r+b" if old else "wb")
        self._file.truncate(len(kept))
        self._file.seek(len(kept))
        if not blocks:
            self._write(header)

    def append(self, rows: Sequence[Row]) -> None:
        """Add one image's rows, on the disk when this returns. No rows stand for an image that was skipped."""
        self._write(_lines(rows, self.columns))
        self.blocks += 1

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def _write(self, block: bytes) -> None:
        self._file.write(block)
        self._file.flush()
        os.fsync(self._file.fileno())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, also of one that is still growing or was torn.

    Raises:
        UsageError: no such file.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    kept, _ = _whole_blocks(path.read_bytes())
    return list(csv.DictReader(io.StringIO(kept.decode())))


def _claim(path: Path, parameters: Mapping[str, object]) -> None:
    """Write the parameters beside a new table; compare them with those of an old one."""
    text = json.dumps(parameters, indent=2, sort_keys=True, default=str) + "\n"
    beside = path.with_suffix(".json")
    if path.exists() and beside.exists():
        old, new = json.loads(beside.read_text(encoding="utf-8")), json.loads(text)
        if old != new:
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            raise UsageError(
                f"{path} holds a run with other values of {', '.join(changed)}: delete it to start anew, or choose "
                "another --output"
            )
        return
    part = beside.with_suffix(".json.part")
    part.write_text(text, encoding="utf-8")
    part.replace(beside)  # whole or not at all
    path.unlink(missing_ok=True)


def _whole_blocks(data: bytes) -> tuple[bytes, int]:
    """`data` up to its last empty line, and how many of them there are."""
    lines = data.splitlines(keepends=True)
    empty = [number for number, line in enumerate(lines) if line == b"\n"]
    return b"".join(lines[: empty[-1] + 1]) if empty else b"", len(empty)


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
    return (text.getvalue() + "\n").encode()


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
