"""Tables that survive a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.table_file import Row, TableFile, read_rows
from holistic_cam_plugin.errors import UsageError

COLUMNS = ("image", "value")
BLOCKS: list[list[Row]] = [
    [{"image": "a, b", "value": 1 / 3}, {"image": "a, b", "value": float("nan")}],
    [],
    [{"image": "c", "value": 1e-9}],
    [{"image": "d", "value": 2.0}],
]


def written(path: Path) -> bytes:
    """Append the blocks that the file does not hold yet."""
    with TableFile(path, COLUMNS, {"seed": 0}) as table:
        for block in BLOCKS[table.blocks :]:
            table.append(block)
    return path.read_bytes()


def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    assert written(path) == whole
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert written(path) == whole, length


def test_rows_of_a_torn_file_are_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    assert [row["value"] for row in read_rows(path)] == ["0.333333", "", "1e-09", "2"]
    path.write_bytes(whole[:-3])
    assert [row["image"] for row in read_rows(path)] == ["a, b", "a, b", "c"]
    with pytest.raises(UsageError, match="does not exist"):
        read_rows(tmp_path / "none.csv")


def test_other_parameters_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    with pytest.raises(UsageError, match="other values of seed"):
        TableFile(path, COLUMNS, {"seed": 1})
    with pytest.raises(UsageError, match="other columns"):
        TableFile(path, ("image", "other"), {"seed": 0})
    assert path.read_bytes() == whole


def test_a_table_whose_parameters_are_unknown_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    (tmp_path / "t.json").unlink()
    path.write_bytes(b"image,value\n\nforeign,1\n\n")
    assert written(path) == whole
