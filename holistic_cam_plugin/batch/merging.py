"""Merge the records of shards into one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from holistic_cam_plugin.batch.parameters import compare_parameters
from holistic_cam_plugin.batch.record import RECORD, Record, find_records
from holistic_cam_plugin.batch.tables import write_tables
from holistic_cam_plugin.errors import UsageError, convert_write_errors

__all__ = ["merge_shards"]


def merge_shards(folder: Path) -> int:
    """Merge the records of a folder's shards into `record.sqlite`, write the tables, and remove the shards' records.

    Returns:
        The number of shards.

    Raises:
        UsageError: There are no shards, one of them is running, or their parameters differ.
        OutputError: The folder cannot be written.
    """
    paths = [path for path in find_records(folder) if path.name != RECORD]
    if not paths:
        raise UsageError(f"{folder} contains no records of shards, record-I-of-N.sqlite")
    with ExitStack() as opened, convert_write_errors(folder):
        merged = opened.enter_context(Record(folder / RECORD, write=True))
        for shard in [opened.enter_context(Record(path, write=True)) for path in paths]:
            compare_parameters(folder, merged.parameters, shard.parameters)
            merged.merge(shard)
        write_tables(folder, merged, f".part-{merged.path.stem}")
        opened.pop_all().close()  # only now the shards may be removed
        for path in paths:
            path.unlink()
            path.with_name(f".{path.stem}.lock").unlink(missing_ok=True)
    return len(paths)
