"""An experiment's table: a journal, one unit an image, and beside it a JSON file of what the values depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from holistic_cam_plugin.batch.journal import Journal
from holistic_cam_plugin.batch.store import write_whole
from holistic_cam_plugin.errors import UsageError

__all__ = ["TableFile"]


class TableFile(Journal):
    """A journal that only a run with the same parameters goes on with.

    Args:
        path: the CSV; its parameters go to the same name with `.json`.
        columns: of every row.
        parameters: whatever determines the values, as JSON takes it.

    Raises:
        UsageError: the file holds a run with other or unknown parameters, or other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], parameters: Mapping[str, object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _claim(path, parameters)
        super().__init__(path, columns)


def _claim(path: Path, parameters: Mapping[str, object]) -> None:
    """Write the parameters beside a new table; compare them with those of an old one."""
    text = json.dumps(parameters, indent=2, sort_keys=True, default=str) + "\n"
    beside = path.with_suffix(".json")
    if beside.exists():
        changed = _changed(beside, json.loads(text))
        if changed:
            raise UsageError(
                f"{path} holds a run with other values of {', '.join(changed)}: delete it and {beside.name} to start "
                "anew, or choose another --output"
            )
    elif path.exists():
        raise UsageError(
            f"{path} is there, but not {beside.name}, which would say how it was made: move it away, or choose "
            "another --output"
        )
    else:
        write_whole(path.parent, beside.name, [text.encode()])


def _changed(beside: Path, new: Mapping[str, object]) -> list[str]:
    """The names of the parameters whose values differ from those in the file."""
    try:
        old = dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{beside} can't be read: {error}. Choose another --output") from error
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
