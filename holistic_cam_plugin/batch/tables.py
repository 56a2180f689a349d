"""The tables for the user: `manifest.csv` and `errors.csv`, and `manifest.parquet` where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module, util
from pathlib import Path
from typing import Any

from holistic_cam_plugin.batch.outputs import map_name
from holistic_cam_plugin.batch.parameters import hash_parameters
from holistic_cam_plugin.batch.record import Record
from holistic_cam_plugin.errors import convert_write_errors
from holistic_cam_plugin.files import write_whole

__all__ = ["ERRORS", "MANIFEST", "find_failure", "write_tables"]

MANIFEST = (
    "file", "width", "height", "bytes", "target", "class", "predicted", "predicted_class", "label",
    "label_probability", "score", "probability", "coverage", "layer", "method", "seconds", "map", "model", "versions",
    "parameters",
)  # fmt: skip
_NUMBERS = {"width", "height", "bytes", "target", "predicted", "label"}
_FLOATS = {"label_probability", "score", "probability", "coverage", "seconds"}
ERRORS = ("file", "reason", "parameters")

_MAPS = """
SELECT maps.*, width, height, bytes, predicted, name AS predicted_class, label, label_probability
FROM maps JOIN images USING (file) LEFT JOIN classes ON number = predicted ORDER BY maps.file, place
"""
_FAILURES = "SELECT file, reason FROM images WHERE state = 'failed' ORDER BY file"


def write_tables(folder: Path, record: Record, part: str = "") -> None:
    """Write the tables of a record into its output folder.

    Args:
        part: The name of an unfinished table, as in `write_whole`.

    Raises:
        OutputError: They cannot be written.
    """
    same = _describe_run(record.parameters)
    maps = ({**row, "map": map_name(row["file"]), **same} for row in record.connection.execute(_MAPS))
    failures = ({**row, **same} for row in record.connection.execute(_FAILURES))
    parquet = folder / "manifest.parquet"
    with convert_write_errors(folder):
        write_whole(folder, "errors.csv", _encode_csv(ERRORS, failures), part)
        write_whole(folder, "manifest.csv", _encode_csv(MANIFEST, maps), part)
        if util.find_spec("pyarrow"):
            write_whole(folder, parquet.name, [_convert_to_parquet(folder / "manifest.csv")], part)
        else:
            parquet.unlink(missing_ok=True)  # of another installation, and out of date now


def find_failure(record: Record) -> str:
    """Return the reason why most of the failed images failed; there must be one."""
    query = "SELECT reason FROM images WHERE state = 'failed' GROUP BY reason ORDER BY count(*) DESC, reason"
    return str(record.connection.execute(query).fetchone()["reason"])


def _describe_run(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Return the columns that are the same in every row."""
    versions = " ".join(f"{name}={version}" for name, version in parameters.get("versions", {}).items())
    return {"model": parameters.get("model"), "versions": versions, "parameters": hash_parameters(parameters)}


def _encode_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the lines; floats have six digits."""
    line = io.StringIO(newline="")
    writer = csv.writer(line)
    writer.writerow(columns)
    for row in rows:
        values = (row[column] for column in columns)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
        yield line.getvalue().encode()
        line.seek(0)
        line.truncate()
    yield line.getvalue().encode()


def _convert_to_parquet(path: Path) -> bytes:
    arrow, arrow_csv, buffer = import_module("pyarrow"), import_module("pyarrow.csv"), io.BytesIO()
    kinds = {**dict.fromkeys(_NUMBERS, arrow.int64()), **dict.fromkeys(_FLOATS, arrow.float64())}
    types = {column: kinds.get(column, arrow.string()) for column in MANIFEST}
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    with path.open("rb") as file:  # arrow itself opens no path that is not valid UTF-8
        table = arrow_csv.read_csv(file, None, parsing, arrow_csv.ConvertOptions(column_types=types))
    import_module("pyarrow.parquet").write_table(table, buffer)
    return buffer.getvalue()
