"""The record of a run: an SQLite database with its parameters, its images and their maps.

One process writes it, one transaction per image; any number read it, also while the run goes on.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from holistic_cam_plugin.errors import RESUME, OutputError, UsageError, check_file, check_regular

__all__ = ["RECORD", "Record", "find_records", "read_record"]

RECORD = "record.sqlite"
_SHARD_PATTERN = re.compile(r"record-[0-9]+-of-[0-9]+\.sqlite")

_VERSION = 1
_SCHEMA = """
CREATE TABLE parameters (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE classes (number INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE images (
    file TEXT PRIMARY KEY, bytes INTEGER, modified INTEGER,
    state TEXT CHECK (state IN ('explained', 'failed')), reason TEXT,
    label INTEGER, predicted INTEGER, probability REAL, label_probability REAL,
    height INTEGER, width INTEGER, mask TEXT, boxes TEXT
);
CREATE TABLE maps (
    file TEXT REFERENCES images ON DELETE CASCADE, method TEXT, layer TEXT, target INTEGER, class TEXT,
    score REAL, probability REAL, coverage REAL, seconds REAL, place INTEGER,
    PRIMARY KEY (file, method, layer, target)
);
"""
_TABLES = ("parameters", "classes", "images", "maps")
# Another process may be committing, or reading the whole table.
_TIMEOUT = 60


class Record:
    """An open record; a context manager.

    Args:
        path: The database. ":memory:": a temporary one.
        write: Create the database if needed, and be its only writer until `close`, or until the process ends.

    Attributes:
        connection: For queries; rows are `sqlite3.Row`. The tables are described by `_SCHEMA`.

    Raises:
        UsageError: The file is not a record, does not exist, or another process is writing it.
    """

    def __init__(self, path: Path | str, *, write: bool = False) -> None:
        self.path, self._write = Path(path), write
        self._lock = _lock(self.path) if write and path != ":memory:" else None
        try:
            self.connection = self._connect(path)
        except sqlite3.Error as error:
            self._unlock()
            raise UsageError(f"{path} cannot be used as the record of a run: {error}") from error
        except BaseException:
            self._unlock()
            raise

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        if path == ":memory:":
            connection = sqlite3.connect(path, check_same_thread=False)
        else:
            (check_regular if self._write else check_file)(self.path)
            address = f"{self.path.absolute().as_uri()}?mode={'rwc' if self._write else 'ro'}"
            connection = sqlite3.connect(address, _TIMEOUT, uri=True, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check the tables; create them in a new record."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if self._write and (version, count) == (0, 0):
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
        elif version != _VERSION:
            raise UsageError(f"{self.path} is not the record of a run of this version: move it away")
        if self._write:
            connection.execute("PRAGMA foreign_keys = ON")
            with suppress(sqlite3.OperationalError):  # a file system without shared memory
                connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may undo the last transactions, whose images are then explained again.
            connection.execute("PRAGMA synchronous = NORMAL")

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the maps; empty in a new record."""
        return {row["key"]: json.loads(row["value"]) for row in self.connection.execute("SELECT * FROM parameters")}

    @property
    def classes(self) -> list[str]:
        """The names of the model's classes."""
        return [row["name"] for row in self.connection.execute("SELECT name FROM classes ORDER BY number")]

    def set_parameters(self, parameters: Mapping[str, object], classes: Sequence[str]) -> None:
        """Store the run's parameters, JSON-serializable, and the model's classes in place of earlier ones."""
        with self._transaction() as connection:
            connection.executescript("BEGIN; DELETE FROM parameters; DELETE FROM classes")
            pairs = [(key, json.dumps(value)) for key, value in parameters.items()]
            connection.executemany("INSERT INTO parameters VALUES (?, ?)", pairs)
            connection.executemany("INSERT INTO classes VALUES (?, ?)", enumerate(classes))

    def add(self, image: Mapping[str, object], maps: Sequence[Mapping[str, object]] = ()) -> None:
        """Store an image and its maps in place of earlier ones, in one transaction.

        Args:
            image: The columns of the table `images`; missing ones are NULL.
            maps: The columns of the table `maps`; `file` and `place` are added.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM images WHERE file = ?", (image["file"],))
            _insert(connection, "images", image)
            for place, row in enumerate(maps):
                _insert(connection, "maps", {**row, "file": image["file"], "place": place})

    def remove(self, files: Sequence[str]) -> None:
        """Remove images and their maps."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM images WHERE file = ?", [(file,) for file in files])

    def merge(self, other: Record) -> None:
        """Copy all rows of another record; its images replace those of the same name."""
        with self._transaction() as connection:
            for table in _TABLES:
                rows = other.connection.execute(f"SELECT * FROM {table}")
                marks = ", ".join("?" * len(rows.description))
                connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    def close(self) -> None:
        """Close the record; another process may write it now."""
        if self._write:
            with suppress(sqlite3.Error):  # a reader is at work, or the disk is full
                self.connection.execute("PRAGMA journal_mode = DELETE")  # one file, readable on read-only disks
        self.connection.close()
        self._unlock()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit at the end, or undo everything."""
        try:
            with self.connection:
                yield self.connection
        except sqlite3.Error as error:
            raise OutputError(f"cannot write to {self.path} ({error}): {RESUME}") from error

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()


def find_records(folder: Path) -> list[Path]:
    """Return the records of an output folder: `record.sqlite`, and those of shards."""
    shards = sorted(path for path in folder.glob("record-*.sqlite") if _SHARD_PATTERN.fullmatch(path.name))
    return [folder / RECORD] * (folder / RECORD).exists() + shards


def read_record(folder: Path) -> Record:
    """Open the record of an output folder for reading; those of several shards are merged in memory.

    Raises:
        UsageError: The folder has no record, or a damaged one.
    """
    paths = find_records(folder)
    if not paths:
        raise UsageError(f"{folder} is not an output folder of holistic-cam batch: it has no {RECORD}")
    if len(paths) == 1:
        return Record(paths[0])
    merged = Record(":memory:", write=True)
    for path in reversed(paths):  # record.sqlite, which is the latest, last
        with Record(path) as record:
            merged.merge(record)
    return merged


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))


def _lock(path: Path) -> sqlite3.Connection:
    """Lock an empty database beside the record, which stays readable; the system releases a killed process's lock."""
    lock = path.with_suffix(".lock")
    check_regular(lock)
    connection = sqlite3.connect(lock, timeout=0, check_same_thread=False)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        if "locked" in str(error):
            raise UsageError(
                f"another run is using {path.parent}: wait until it ends, or choose another --output"
            ) from None
        raise UsageError(f"cannot lock {lock}: {error}") from error
    return connection
