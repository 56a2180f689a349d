"""The manifest: one row a map, in journals while a run is at work.

Every rank appends to a journal of its own, `manifest-RANK.csv`. Before and after the work the journals are merged into
`manifest.csv`, sorted by file. `errors.csv` is made likewise. Every row carries its checksum, so what a broken disk or
an editor changed is known and made again.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holistic_cam_plugin.batch.journal import Journal, Row, Unit, header, read_units, text
from holistic_cam_plugin.batch.store import write_whole

__all__ = ["ERRORS", "MANIFEST", "Table", "merge", "recorded", "remove"]


class Table(NamedTuple):
    """One of an output folder's tables; a unit is a file's rows. The last column is `ROW_CHECKSUM`."""

    name: str
    columns: tuple[str, ...]

    def row(self, values: Row) -> Row:
        """The values as they are written, with the row's checksum."""
        written = {column: text(value) for column, value in values.items()}
        return {**written, ROW_CHECKSUM: self._checksum(written)}

    def journal(self, folder: Path, rank: int) -> Journal:
        """The rank's own file."""
        return Journal(folder / f"{self.name}-{rank}.csv", self.columns)

    def journals(self, folder: Path) -> list[Path]:
        """The ranks' own files."""
        given = re.compile(rf"{self.name}-(0|[1-9][0-9]*)\.csv")
        return sorted(path for path in folder.iterdir() if given.fullmatch(path.name))

    def files(self, folder: Path) -> list[Path]:
        """The merged file, if there is one, and the journals."""
        merged = folder / f"{self.name}.csv"
        return [merged] * merged.exists() + self.journals(folder)

    def units(self, path: Path) -> Iterator[Unit]:
        """The files' rows in one of the table's files; what is damaged or torn is left out.

        Raises:
            UsageError: it is another table.
        """
        return (unit for unit in read_units(path, self.columns, self._trusted) if unit.rows)

    def _trusted(self, rows: Sequence[Mapping[str, str]]) -> bool:
        return len({row["file"] for row in rows}) == 1 and all(
            row[ROW_CHECKSUM] == self._checksum(row) and _SECONDS.fullmatch(row.get("seconds", "0")) for row in rows
        )

    def _checksum(self, row: Mapping[str, str]) -> str:
        """CRC-32 in hexadecimal of all values but the seconds, which differ from run to run."""
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
    """Make one file of the merged file and the journals, sorted by file, and remove the journals.

    A file's rows in a journal replace older ones. It needs memory for the files' names, not for the rows.

    Args:
        without: files whose rows are left out.

    Raises:
        UsageError: one of them is another table.
    """
    places: dict[str, _Place] = {}
    sources = table.files(folder)
    for source, path in enumerate(sources):
        for unit in table.units(path):
            places[unit.rows[0]["file"]] = _Place(source, unit.offset, unit.length)
    for file in without:
        places.pop(file, None)
    journals = table.journals(folder)
    write_whole(folder, f"{table.name}.csv", _merged(table, sources, places))
    for path in journals:
        path.unlink()


def recorded(folder: Path, table: Table) -> Iterator[list[dict[str, str]]]:
    """Every file's rows, as they lie in the merged file and the journals; what is torn is left out."""
    for path in table.files(folder):
        for unit in table.units(path):
            yield unit.rows


def remove(folder: Path, table: Table) -> None:
    """Remove the merged file and the journals.

    Raises:
        UsageError: one of them is another table; then none is removed.
    """
    paths = table.files(folder)
    for path in paths:
        deque(table.units(path), maxlen=0)
    for path in paths:
        path.unlink()


class _Place(NamedTuple):
    """Where the rows of one file lie."""

    source: int
    offset: int
    length: int


def _merged(table: Table, sources: Sequence[Path], places: Mapping[str, _Place]) -> Iterator[bytes]:
    yield header(table.columns)
    files = [path.open("rb") for path in sources]
    try:
        for name in sorted(places):
            place = places[name]
            files[place.source].seek(place.offset)
            yield files[place.source].read(place.length)
    finally:
        for file in files:
            file.close()
