"""The manifest: one row a map, in journals while a run is at work.

Every rank appends to a journal of its own, `manifest-RANK.csv`. Before and after the work the journals are merged into
`manifest.csv`, sorted by file. `errors.csv` is made likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holistic_cam_plugin.batch.journal import Journal, Unit, header, read_units
from holistic_cam_plugin.batch.store import write_whole

__all__ = ["ERRORS", "MANIFEST", "Table", "merge", "recorded", "remove"]


class Table(NamedTuple):
    """One of an output folder's tables; a unit is a file's rows."""

    name: str
    columns: tuple[str, ...]

    def journal(self, folder: Path, rank: int) -> Journal:
        """The rank's own file."""
        return Journal(folder / f"{self.name}-{rank}.csv", self.columns)

    def journals(self, folder: Path) -> list[Path]:
        """The ranks' own files."""
        return sorted(folder.glob(f"{self.name}-*.csv"))

    def files(self, folder: Path) -> list[Path]:
        """The merged file, if there is one, and the journals."""
        merged = folder / f"{self.name}.csv"
        return [merged] * merged.exists() + self.journals(folder)


# The last column of both is the digest of the run's parameters.
MANIFEST = Table(
    "manifest",
    (
        "file", "width", "height", "bytes", "target", "class", "predicted", "score", "probability", "layer", "method",
        "seconds", "map", "checksum", "model", "versions", "parameters",
    ),
)  # fmt: skip
ERRORS = Table("errors", ("file", "reason", "parameters"))


def merge(folder: Path, table: Table) -> None:
    """Make one file of the merged file and the journals, sorted by file, and remove the journals.

    A file's rows in a journal replace older ones. It needs memory for the files' names, not for the rows.

    Raises:
        UsageError: one of them is another table.
    """
    places: dict[str, _Place] = {}
    sources = table.files(folder)
    for source, path in enumerate(sources):
        for unit in _units(path, table):
            places[unit.rows[0]["file"]] = _Place(source, unit.offset, unit.length)
    journals = table.journals(folder)
    write_whole(folder, f"{table.name}.csv", _merged(table, sources, places))
    for path in journals:
        path.unlink()


def recorded(folder: Path, table: Table) -> Iterator[list[dict[str, str]]]:
    """Every file's rows, as they lie in the merged file and the journals; what is torn is left out."""
    for path in table.files(folder):
        for unit in _units(path, table):
            yield unit.rows


def remove(folder: Path, table: Table) -> None:
    """Remove the merged file and the journals."""
    for path in table.files(folder):
        path.unlink()


class _Place(NamedTuple):
    """Where the rows of one file lie."""

    source: int
    offset: int
    length: int


def _units(path: Path, table: Table) -> Iterator[Unit]:
    return (unit for unit in read_units(path, table.columns) if unit.rows)


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
