"""The tables for the user: `manifest.csv` and `errors.csv`, and `manifest.parquet` where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module, util
from itertools import islice
from pathlib import Path
from typing import Any

from holistic_cam_plugin.batch.archives import map_name
from holistic_cam_plugin.batch.parameters import hash_parameters
from holistic_cam_plugin.batch.record import Record
from holistic_cam_plugin.errors import convert_write_errors
from holistic_cam_plugin.files import write_whole

__all__ = ["ERRORS", "MANIFEST", "write_tables"]

MANIFEST: Mapping[str, type] = {
    "file": str, "width": int, "height": int, "bytes": int, "target": int, "class": str, "predicted": int,
    "predicted_class": str, "label": int, "label_probability": float, "score": float, "probability": float,
    "coverage": float, "layer": str, "method": str, "seconds": float, "map": str, "model": str, "versions": str,
    "parameters": str,
}  # fmt: skip
ERRORS = ("file", "reason", "parameters")

_MAPS = """
SELECT maps.*, width, height, bytes, predicted, name AS predicted_class, label, label_probability
FROM maps JOIN images USING (file) LEFT JOIN classes ON number = predicted ORDER BY maps.file, place
"""
_FAILURES = "SELECT file, reason FROM images WHERE state = 'failed' ORDER BY file"
_ROWS = 10_000  # of a group of a Parquet file


def write_tables(folder: Path, record: Record, part: str = "") -> None:
    """Write the tables of a record into its output folder.

    Args:
        part: See `write_whole`.

    Raises:
        OutputError: They cannot be written.
    """
    parameters = record.parameters
    same = {"model": parameters.get("model"), "parameters": hash_parameters(parameters)}
    same["versions"] = " ".join(f"{name}={version}" for name, version in parameters.get("versions", {}).items())
    failures = ({**row, **same} for row in record.connection.execute(_FAILURES))
    with convert_write_errors(folder):
        write_whole(folder, "errors.csv", _encode_csv(ERRORS, failures), part)
        write_whole(folder, "manifest.csv", _encode_csv(MANIFEST, _list_maps(record, same)), part)
        if util.find_spec("pyarrow"):
            write_whole(folder, "manifest.parquet", [_encode_parquet(_list_maps(record, same))], part)
        else:
            (folder / "manifest.parquet").unlink(missing_ok=True)  # of another installation, and out of date now


def _list_maps(record: Record, same: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """Yield the manifest's rows; `same` are the values of every row."""
    for row in record.connection.execute(_MAPS):
        yield {**row, "map": map_name(row["file"]), **same}


def _encode_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the lines; floats have six digits."""
    line = io.StringIO(newline="")
    writer = csv.writer(line, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        values = (row[column] for column in columns)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
        yield line.getvalue().encode()
        line.seek(0)
        line.truncate()
    yield line.getvalue().encode()


def _encode_parquet(rows: Iterator[Mapping[str, Any]]) -> bytes:
    arrow: Any = import_module("pyarrow")
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(column, types[kind]) for column, kind in MANIFEST.items()])
    buffer = io.BytesIO()
    with import_module("pyarrow.parquet").ParquetWriter(buffer, schema) as writer:
        while group := list(islice(rows, _ROWS)):
            writer.write_table(arrow.Table.from_pylist(group, schema))
    return buffer.getvalue()
