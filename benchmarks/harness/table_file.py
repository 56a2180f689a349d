"""Resumable tables: a journal with one unit per image, and a JSON file with the parameters beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from holistic_cam_plugin.batch.journal import Journal
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.files import write_whole

__all__ = ["TableFile"]


class TableFile(Journal):
    """A journal that can only be continued with the same parameters.

    Args:
        path: CSV file; the parameters are stored under the same name with `.json`.
        columns: columns of the table.
        parameters: everything that the values depend on, serialisable as JSON.

    Raises:
        UsageError: the file was written with other or unknown parameters, or has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], parameters: Mapping[str, object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_parameters(path, parameters)
        super().__init__(path, columns)


def _check_parameters(path: Path, parameters: Mapping[str, object]) -> None:
    """Store the parameters of a new table, or compare them with those of an existing one."""
    text = json.dumps(parameters, indent=2, sort_keys=True, default=str) + "\n"
    beside = path.with_suffix(".json")
    if beside.exists():
        changed = _find_changes(beside, json.loads(text))
        if changed:
            raise UsageError(
                f"{path} was written with other values of {', '.join(changed)}: delete it and {beside.name}, or choose "
                "another --output"
            )
    elif path.exists():
        raise UsageError(
            f"{path} exists without {beside.name}, so its parameters are unknown: move it away, or choose another "
            "--output"
        )
    else:
        write_whole(path.parent, beside.name, [text.encode()])


def _find_changes(beside: Path, new: Mapping[str, object]) -> list[str]:
    """Names of the parameters whose values differ from those in the file."""
    try:
        old = dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"cannot read {beside}: {error}. Choose another --output") from error
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
