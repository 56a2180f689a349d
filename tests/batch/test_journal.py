"""A table grows unit by unit, may be torn anywhere, and can be continued."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from holistic_cam_plugin.batch.journal import Journal, encode_header, read_rows, read_units
from holistic_cam_plugin.errors import UsageError

COLUMNS = ("file", "value")
NAMES = ("plain", 'quote "', "comma, ", "line\nend", "\n\n", '"\n\n"', "Ünï\r\ncode", "return\rhere", "")
UNITS = [
    *([{"file": name, "value": number} for number in range(number % 3)] for number, name in enumerate(NAMES)),
    [],
    [{"file": "floats", "value": value} for value in (1 / 3, float("nan"), 1e-9, 2.0)],
    [{"file": "no value"}],
]


def written(path: Path) -> bytes:
    """Append the units that the file does not hold yet."""
    with Journal(path, COLUMNS) as journal:
        for unit in UNITS[journal.units :]:
            journal.append(unit)
    return path.read_bytes()


def test_a_table_torn_anywhere_keeps_its_whole_units_and_goes_on_to_the_same_bytes(tmp_path):
    path, ends = tmp_path / "t.csv", []
    with Journal(path, COLUMNS) as journal:
        for unit in UNITS:
            journal.append(unit)
            ends.append(path.stat().st_size)
            assert journal.units == len(ends)
    whole = path.read_bytes()
    assert written(path) == whole
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert len(list(read_units(path))) == sum(end <= length for end in ends)
        assert written(path) == whole, length


def test_values_come_back(tmp_path):
    written(tmp_path / "t.csv")
    names = [row["file"] for row in read_rows(tmp_path / "t.csv")]
    assert names == [row["file"] for unit in UNITS for row in unit]
    assert [row["value"] for row in read_rows(tmp_path / "t.csv")][-5:] == ["0.333333", "", "1e-09", "2", ""]


def test_other_readers_of_csv_see_the_rows_alone(tmp_path):
    written(tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, lineterminator="\n")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == read_rows(tmp_path / "t.csv")
    assert table["value"].astype(str).tolist() == [row["value"] for row in rows]


def test_units_lie_where_they_say(tmp_path):
    data = written(tmp_path / "t.csv")
    units = list(read_units(tmp_path / "t.csv"))
    assert [len(unit.rows) for unit in units] == [len(unit) for unit in UNITS]
    blocks = [data[unit.offset : unit.offset + unit.length] for unit in units]
    assert encode_header(COLUMNS) + b"".join(blocks) == data


def test_rows_are_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with Journal(tmp_path / "t.csv", COLUMNS) as journal:
        journal.append([{"file": "a", "value": 1}])
        assert synced == [len(encode_header(COLUMNS)), (tmp_path / "t.csv").stat().st_size]


@pytest.mark.parametrize("text", ["other,value\n\nx,1\n\n", "file,value\nx,1\n", "notes", "file,value\nx,1\n\ny,2\n\n"])
def test_another_table_is_refused_and_stays(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(
        UsageError, match=r"t\.csv is a different table, with other columns or in another format: .* another --output"
    ):
        Journal(path, COLUMNS)
    assert path.read_text() == text


def test_what_can_not_be_read(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "plain.csv").write_text("file,value\nx,1\n")
    with pytest.raises(UsageError, match=r"plain\.csv is a different table"):
        read_rows(tmp_path / "plain.csv")
    written(tmp_path / "t.csv")
    with pytest.raises(UsageError, match=r"t\.csv is a different table"):
        next(read_units(tmp_path / "t.csv", ("file", "other")))
    (tmp_path / "t.csv").write_text("one line\n")
    with pytest.raises(UsageError, match=r"t\.csv is a different table"):
        next(read_units(tmp_path / "t.csv", COLUMNS))


def test_a_damaged_table_is_read_around_the_damage_and_goes_on_before_it(tmp_path):
    path = tmp_path / "t.csv"
    whole = written(path)
    places = [unit.offset for unit in read_units(path)]
    path.write_bytes(whole[: places[5]] + b'"' + whole[places[5] :])
    assert len(list(read_units(path))) == len(UNITS) - 1
    with pytest.raises(UsageError, match=rf"t\.csv is damaged between bytes {places[5]} and {places[6] + 1}"):
        read_rows(path)
    with Journal(path, COLUMNS) as journal:
        assert journal.units == 5
    assert path.read_bytes() == whole[: places[5]]
    assert written(path) == whole


@pytest.mark.parametrize("names", [b"file,\xff\n\n", b'"file,value\n\n'])
def test_names_that_can_not_be_read(tmp_path, names):
    (tmp_path / "t.csv").write_bytes(names + b"a,1\n\n")
    with pytest.raises(UsageError, match="is a different table"):
        read_rows(tmp_path / "t.csv")


def test_a_value_without_a_column_is_refused_whole(tmp_path):
    with Journal(tmp_path / "t.csv", COLUMNS) as journal, pytest.raises(ValueError, match="other"):
        journal.append([{"file": "a"}, {"other": 1}])
    assert (tmp_path / "t.csv").read_bytes() == encode_header(COLUMNS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_and_what_it_took_of_the_unit_is_cut_off(tmp_path):
    path = tmp_path / "t.csv"
    whole = written(path)
    journal = Journal(path, COLUMNS)
    real, journal._file = journal._file, Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as full, journal:
        journal.append([{"file": "a", "value": 1}])
    assert full.value.errno == errno.ENOSPC
    real.close()
    path.write_bytes(whole + b"a,")
    assert written(path) == whole
