"""The record of a run: an SQLite database with its parameters, its images and their maps.

One process writes it, one transaction per image; any number read it, also while the run goes on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from holistic_cam_plugin.errors import RESUME, OutputError, UsageError, check_regular

__all__ = ["RECORD", "Record", "check_output", "lock_folder", "read_record"]

RECORD = "record.sqlite"
VERSION = 1  # of the tables
_SCHEMA = f"""
BEGIN;
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
PRAGMA user_version = {VERSION};
COMMIT
"""
# Seconds: another process may be committing, or reading.
_TIMEOUT = 60


class Record:
    """An open record; a context manager.

    Args:
        path: The database.
        write: Create the database if needed, and be its only writer until `close`, or until the process ends.

    Attributes:
        connection: For queries; rows are `sqlite3.Row`.

    Raises:
        UsageError: The file is not a record, does not exist, or another process is writing it.
        OutputError: The disk is full.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path, self._lock = path, lock_folder(path.parent) if write else None
        self.connection = _connect(path, "rwc" if write else "ro")
        with self._convert_errors():
            if write:
                self.connection.executescript("PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL")
                with suppress(sqlite3.OperationalError):  # a file system without shared memory
                    self.connection.execute("PRAGMA journal_mode = WAL")
                if self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    self.connection.executescript(_SCHEMA)
            if self.connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                raise UsageError(f"{path} is not the record of a run of this version: move it away")

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the maps; empty in a new record."""
        try:
            return {row["key"]: json.loads(row["value"]) for row in self.connection.execute("SELECT * FROM parameters")}
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.path} cannot be read: {error}. Restore it, or choose another folder") from error

    @property
    def classes(self) -> list[str]:
        """The names of the model's classes."""
        return [row["name"] for row in self.connection.execute("SELECT name FROM classes ORDER BY number")]

    def set_parameters(self, parameters: Mapping[str, object], classes: Sequence[str]) -> None:
        """Store the run's parameters, JSON-serializable, and the model's classes in place of earlier ones."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM parameters")
            connection.execute("DELETE FROM classes")
            pairs = [(key, json.dumps(value)) for key, value in parameters.items()]
            connection.executemany("INSERT INTO parameters VALUES (?, ?)", pairs)
            connection.executemany("INSERT INTO classes VALUES (?, ?)", enumerate(classes))

    def add(self, image: Mapping[str, object], maps: Sequence[Mapping[str, object]] = ()) -> None:
        """Store an image and its maps in place of earlier ones, in one transaction.

        Args:
            image: The columns of the table `images`; missing ones are NULL.
            maps: The columns of the table `maps`; `file` and `place` are added.
        """
        with self.transaction() as connection:
            connection.execute("DELETE FROM images WHERE file = ?", (image["file"],))
            _insert(connection, "images", image)
            for place, row in enumerate(maps):
                _insert(connection, "maps", {**row, "file": image["file"], "place": place})

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit at the end of the body, or undo everything; raise OutputError if that is impossible."""
        with self._convert_errors(), self.connection:
            yield self.connection

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            reason = "the disk is full" if "is full" in str(error) else error
            raise OutputError(f"cannot write to {self.path} ({reason}): {RESUME}") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a mistake of ours
                raise
            raise UsageError(f"{self.path} cannot be read: {error}. Restore it, or choose another folder") from error

    def close(self) -> None:
        """Close the record; another process may write it now."""
        if self._lock is not None:
            with suppress(sqlite3.Error):  # a reader is at work, or the disk is full
                self.connection.executescript("PRAGMA busy_timeout = 0; PRAGMA journal_mode = DELETE")  # a single file
            self._lock.close()
        self.connection.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            with self._convert_errors():
                raise error


def read_record(folder: Path) -> Record:
    """Open the record of an output folder for reading.

    Raises:
        UsageError: The folder has no record, or a damaged one.
    """
    check_output(folder)
    return Record(folder / RECORD)


def check_output(folder: Path) -> None:
    """Raise UsageError if the folder has no record."""
    if not (folder / RECORD).exists():
        raise UsageError(f"{folder} is not an output folder of holistic-cam batch: it has no {RECORD}")


def _connect(path: Path, mode: str, timeout: float = _TIMEOUT) -> sqlite3.Connection:
    check_regular(path)  # opening a FIFO would block
    try:
        address = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(address, timeout=timeout, uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be opened: {error}") from error
    connection.row_factory = sqlite3.Row
    return connection


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))


def lock_folder(folder: Path) -> sqlite3.Connection:
    """Lock a folder for this process, by an empty database in it; the system releases the lock of a killed process.

    Returns:
        What is to be closed when another process may write to the folder.

    Raises:
        UsageError: Another process has locked the folder, or it is not writable.
    """
    connection = _connect(folder / ".lock", "rwc", timeout=0)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        reason = f"another run is using {folder}: wait until it ends"
        raise UsageError(
            f"{reason if 'locked' in str(error) else f'cannot lock {folder}: {error}'}, or choose another --output"
        ) from error
    return connection
