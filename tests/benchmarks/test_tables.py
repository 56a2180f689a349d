"""Tables that survive a kill."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from benchmarks.harness.table_file import Row, TableFile, read_rows
from holistic_cam_plugin.errors import UsageError

ROOT = Path(__file__).parents[2]
COLUMNS = ("image", "value")
UNITS: list[list[Row]] = [
    [{"image": "a, b", "value": 1 / 3}, {"image": "a, b", "value": float("nan")}],
    [],
    [{"image": "c", "value": 1e-9}],
    [{"image": "d", "value": 2.0}],
]


def append_missing(path: Path) -> bytes:
    """Append the units that are not yet in the file."""
    with TableFile(path, COLUMNS, {"seed": 0}) as table:
        for unit in UNITS[table.units :]:
            table.append(unit)
    return path.read_bytes()


def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = append_missing(path)
    assert append_missing(path) == whole
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert append_missing(path) == whole, length


def test_rows_of_a_torn_file_are_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = append_missing(path)
    assert [row["value"] for row in read_rows(path)] == ["0.333333", "", "1e-09", "2"]
    path.write_bytes(whole[:-3])
    assert [row["image"] for row in read_rows(path)] == ["a, b", "a, b", "c"]
    with pytest.raises(UsageError, match="does not exist"):
        read_rows(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "text", ["image,value\na,1\n", "image,value\na,1\n\n", "image,value\n\na\n\n", "notes\nmore, notes\n", "\n\na\n"]
)
def test_a_table_of_another_kind_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    append_missing(path)
    path.write_text(text)
    with pytest.raises(UsageError, match=r"t\.csv is a different table, or damaged before byte \d+: move it away"):
        read_rows(path)
    with pytest.raises(UsageError, match="is a different table"):
        append_missing(path)
    assert path.read_text() == text


def test_rows_are_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with TableFile(tmp_path / "t.csv", COLUMNS, {}) as table:
        synced.clear()
        table.append([{"image": "a", "value": 1}])
        assert synced == [(tmp_path / "t.csv").stat().st_size]


def test_a_value_without_a_column_is_refused_whole(tmp_path: Path) -> None:
    with TableFile(tmp_path / "t.csv", COLUMNS, {}) as table, pytest.raises(ValueError, match="other"):
        table.append([{"image": "a"}, {"other": 1}])
    assert read_rows(tmp_path / "t.csv") == []
    assert (tmp_path / "t.csv").read_text() == "image,value\n\n"


def test_line_breaks_become_spaces_and_quotes_come_back(tmp_path: Path) -> None:
    with TableFile(tmp_path / "t.csv", COLUMNS, {}) as table:
        table.append([{"image": 'a "b"\n\nc\r\nd\re'}])
    assert read_rows(tmp_path / "t.csv") == [{"image": 'a "b"  c d e', "value": ""}]


def test_other_parameters_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = append_missing(path)
    with pytest.raises(UsageError, match="other values of seed"):
        TableFile(path, COLUMNS, {"seed": 1})
    with pytest.raises(UsageError, match="other columns"):
        TableFile(path, ("image", "other"), {"seed": 0})
    assert path.read_bytes() == whole


def test_a_table_with_unknown_parameters_is_rejected_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"image,value\n\nforeign,1\n\n")
    with pytest.raises(UsageError, match=r"t\.csv exists without t\.json, .* choose another --output"):
        append_missing(path)
    assert path.read_bytes() == b"image,value\n\nforeign,1\n\n"
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_unreadable_parameters_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UsageError, match=r"cannot read .*t\.json: .* Choose another --output"):
        append_missing(tmp_path / "t.csv")
    assert (tmp_path / "t.json").read_text() == text


def test_parameters_without_a_table_are_of_a_run_that_was_killed_at_its_start(tmp_path: Path) -> None:
    whole = append_missing(tmp_path / "t.csv")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(UsageError, match=r"other values of seed: delete it and t\.json, or choose another"):
        TableFile(tmp_path / "t.csv", COLUMNS, {"seed": 1})
    assert append_missing(tmp_path / "t.csv") == whole


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").rglob("*.csv")), ids=str)
def test_committed_tables_are_read_whole(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    if b"\n\n" in path.read_bytes():  # those that grew by units
        assert read_rows(path) == rows
