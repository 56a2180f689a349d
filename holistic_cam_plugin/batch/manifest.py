"""The manifest: one row per map.

Every rank appends to a journal of its own, `manifest-RANK.csv`. Before and after a run the journals are merged into
`manifest.csv`, sorted by file; `errors.csv` likewise. Every row carries a checksum, so rows changed by a broken disk or
an editor are detected and made again.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holistic_cam_plugin.batch.journal import Journal, Row, Unit, encode_header, format_value, read_units
from holistic_cam_plugin.files import write_whole

__all__ = ["ERRORS", "MANIFEST", "Table", "merge", "read_records", "remove"]


class Table(NamedTuple):
    """A table of the output folder; a unit holds the rows of one file. The last column is `ROW_CHECKSUM`."""

    name: str
    columns: tuple[str, ...]

    def format_row(self, values: Row) -> Row:
        """Return the values as they are written, with the row's checksum."""
        written = {column: format_value(value) for column, value in values.items()}
        return {**written, ROW_CHECKSUM: self._compute_checksum(written)}

    def open_journal(self, folder: Path, rank: int) -> Journal:
        """Open the rank's journal."""
        return Journal(folder / f"{self.name}-{rank}.csv", self.columns)

    def find_journals(self, folder: Path) -> list[Path]:
        """Return the journals of all ranks."""
        pattern = re.compile(rf"{self.name}-(0|[1-9][0-9]*)\.csv")
        return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))

    def find_files(self, folder: Path) -> list[Path]:
        """Return the merged table, if it exists, and the journals."""
        merged = folder / f"{self.name}.csv"
        return [merged] * merged.exists() + self.find_journals(folder)

    def read_units(self, path: Path) -> Iterator[Unit]:
        """Yield the rows of each file in one of the table's files; damaged or torn ones are left out.

        Raises:
            UsageError: The file is a different table.
        """
        return (unit for unit in read_units(path, self.columns, self._is_valid) if unit.rows)

    def _is_valid(self, rows: Sequence[Mapping[str, str]]) -> bool:
        return len({row["file"] for row in rows}) == 1 and all(
            row[ROW_CHECKSUM] == self._compute_checksum(row) and _SECONDS.fullmatch(row.get("seconds", "0"))
            for row in rows
        )

    def _compute_checksum(self, row: Mapping[str, str]) -> str:
        """Return the CRC-32 in hexadecimal of all values but the seconds, which differ from run to run."""
        values = [row[column] for column in self.columns if column not in ("seconds", ROW_CHECKSUM)]
        return f"{zlib.crc32(json.dumps(values).encode()):08x}"


ROW_CHECKSUM = "row_checksum"
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")

MANIFEST = Table(
    "manifest",
    (
        "file", "width", "height", "bytes", "target", "class", "predicted", "score", "probability", "layer", "method",
        "seconds", "map", "checksum", "overlay_checksum", "model", "versions", "parameters", ROW_CHECKSUM,
    ),
)  # fmt: skip
ERRORS = Table("errors", ("file", "reason", "parameters", ROW_CHECKSUM))


def merge(folder: Path, table: Table, without: Collection[str] = ()) -> None:
    """Merge the table and its journals into one table sorted by file, and remove the journals.

    A file's rows in a journal replace older ones. Memory holds the names of the files, not the rows.

    Args:
        without: Files whose rows are left out.

    Raises:
        UsageError: One of the files is a different table.
    """
    places: dict[str, _Place] = {}
    sources = table.find_files(folder)
    for source, path in enumerate(sources):
        for unit in table.read_units(path):
            places[unit.rows[0]["file"]] = _Place(source, unit.offset, unit.length)
    for file in without:
        places.pop(file, None)
    journals = table.find_journals(folder)
    write_whole(folder, f"{table.name}.csv", _copy_units(table, sources, places))
    for path in journals:
        path.unlink()


def read_records(folder: Path, table: Table) -> Iterator[list[dict[str, str]]]:
    """Yield the rows of each file, in the order of the merged table and the journals; torn ones are left out."""
    for path in table.find_files(folder):
        for unit in table.read_units(path):
            yield unit.rows


def remove(folder: Path, table: Table) -> None:
    """Remove the table and its journals.

    Raises:
        UsageError: One of the files is a different table; then none is removed.
    """
    paths = table.find_files(folder)
    for path in paths:
        deque(table.read_units(path), maxlen=0)
    for path in paths:
        path.unlink()


class _Place(NamedTuple):
    """The position of a file's rows."""

    source: int
    offset: int
    length: int


def _copy_units(table: Table, sources: Sequence[Path], places: Mapping[str, _Place]) -> Iterator[bytes]:
    yield encode_header(table.columns)
    files = [path.open("rb") for path in sources]
    try:
        for name in sorted(places):
            place = places[name]
            files[place.source].seek(place.offset)
            yield files[place.source].read(place.length)
    finally:
        for file in files:
            file.close()
