"""The manifest: one row a map, in CSV files that only grow while a run is at work.

Every rank appends to a journal of its own, `manifest-RANK.csv`, an image's rows at once. Every row ends with the
digest of the run's parameters, so what a kill has torn shows: it lacks this ending and is left out. Before and after
the work the journals are merged into `manifest.csv`, sorted by file. `errors.csv` is made likewise.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from holistic_cam_plugin.batch.store import write_whole

__all__ = ["ERRORS", "MANIFEST", "Journal", "Row", "Table", "merge", "recorded", "remove"]

Row = Mapping[str, object]


class Table(NamedTuple):
    """A kind of row. The last column holds the digest of the parameters."""

    name: str
    columns: tuple[str, ...]

    def files(self, folder: Path) -> list[Path]:
        """The merged file, if there is one, and the journals."""
        merged = folder / f"{self.name}.csv"
        return [merged] * merged.exists() + self.journals(folder)

    def journals(self, folder: Path) -> list[Path]:
        """The ranks' own files."""
        return sorted(folder.glob(f"{self.name}-*.csv"))


MANIFEST = Table(
    "manifest",
    (
        "file", "width", "height", "bytes", "target", "class", "predicted", "score", "probability", "layer", "method",
        "seconds", "map", "checksum", "model", "versions", "parameters",
    ),
)  # fmt: skip
ERRORS = Table("errors", ("file", "reason", "parameters"))


class Journal:
    """One rank's rows of one run, in the order in which they came about; a context manager.

    Args:
        folder: of the output.
        table: the kind of row.
        rank: in the file's name.
        digest: closes every row.
    """

    def __init__(self, folder: Path, table: Table, rank: int, digest: str) -> None:
        self.table, self.digest = table, digest
        self._file = (folder / f"{table.name}-{rank}.csv").open("wb")
        self._write([table.columns])

    def append(self, rows: Iterable[Row]) -> None:
        """Add a file's rows, on the disk when this returns; without the digest, which is added here."""
        last = self.table.columns[-1]
        self._write([[str((row | {last: self.digest})[c]) for c in self.table.columns] for row in map(dict, rows)])

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def _write(self, rows: Iterable[Sequence[str]]) -> None:
        self._file.write(_lines(rows))
        self._file.flush()
        os.fsync(self._file.fileno())


def merge(folder: Path, table: Table, digest: str) -> None:
    """Make one file of the merged file and the journals, sorted by file, and remove the journals.

    Rows of a file in a journal replace older ones. It needs memory for the files' names, not for the rows.
    """
    places: dict[str, _Place] = {}
    sources = table.files(folder)
    for source, path in enumerate(sources):
        for values, offset, length in _rows(path, digest):
            place = places.get(values[0])
            if place is not None and place.source == source:  # a file's rows follow one another
                places[values[0]] = place._replace(length=place.length + length)
            else:
                places[values[0]] = _Place(source, offset, length)
    journals = table.journals(folder)
    write_whole(folder, f"{table.name}.csv", _merged(table, sources, places))
    for path in journals:
        path.unlink()


def recorded(folder: Path, table: Table, digest: str) -> Iterator[list[dict[str, str]]]:
    """Every file's rows, as they lie in the merged file and the journals; what is torn is left out."""
    for path in table.files(folder):
        rows = (dict(zip(table.columns, values, strict=True)) for values, _, _ in _rows(path, digest))
        for _, group in groupby(rows, key=lambda row: row["file"]):
            yield list(group)


def remove(folder: Path, table: Table) -> None:
    """Remove the merged file and the journals."""
    for path in table.files(folder):
        path.unlink()


class _Place(NamedTuple):
    """Where the rows of one file lie."""

    source: int
    offset: int
    length: int


def _merged(table: Table, sources: Sequence[Path], places: Mapping[str, _Place]) -> Iterator[bytes]:
    yield _lines([table.columns])
    files = [path.open("rb") for path in sources]
    try:
        for name in sorted(places):
            place = places[name]
            files[place.source].seek(place.offset)
            yield files[place.source].read(place.length)
    finally:
        for file in files:
            file.close()


def _rows(path: Path, digest: str) -> Iterator[tuple[list[str], int, int]]:
    """The whole rows of a file, with offset and length in bytes. A row may hold line ends, within quotes."""
    ending = f",{digest}\n".encode()
    with path.open("rb") as file:
        offset = len(file.readline())
        row = b""
        for line in file:
            row += line
            if row.endswith(ending):
                yield next(csv.reader(io.StringIO(row.decode(), newline=""))), offset, len(row)
                offset += len(row)
                row = b""


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
