"""The ranks' journals, which may be torn anywhere, are merged into one table."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from holistic_cam_plugin.batch.manifest import ROW_CHECKSUM, Table, merge, read_records, remove
from holistic_cam_plugin.batch.store import encode_maps, hash_bytes, hash_file
from holistic_cam_plugin.errors import UsageError

TABLE = Table("test", ("file", "value", "seconds", ROW_CHECKSUM))
NAMES = ("plain", 'quote "', "comma, ", "line\nend", "empty\n\nline", "Ünï\r\ncode", "return\rhere", "")


def append(folder, rank, entries):
    with TABLE.open_journal(folder, rank) as journal:
        for name, values in entries:
            journal.append([TABLE.format_row({"file": name, "value": value, "seconds": 0.5}) for value in values])


def content(folder):
    return {rows[0]["file"]: [row["value"] for row in rows] for rows in read_records(folder, TABLE)}


def test_journals_merge_into_one_sorted_table_that_pandas_reads(tmp_path):
    append(tmp_path, 0, [(name, [1, 2]) for name in NAMES[:3]])
    append(tmp_path, 1, [(name, [3]) for name in NAMES[3:]])
    assert content(tmp_path) == {name: ["1", "2"] if name in NAMES[:3] else ["3"] for name in NAMES}
    assert len(pd.read_csv(tmp_path / "test-0.csv")) == 6
    merge(tmp_path, TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["test.csv"]
    table = pd.read_csv(tmp_path / "test.csv", keep_default_na=False)
    assert table["file"].tolist() == sorted([*NAMES[:3], *NAMES])
    merged = (tmp_path / "test.csv").read_bytes()
    merge(tmp_path, TABLE)
    assert (tmp_path / "test.csv").read_bytes() == merged
    append(tmp_path, 0, [("line\nend", [9, 9])])
    merge(tmp_path, TABLE)
    assert content(tmp_path) == {name: ["1", "2"] if name in NAMES[:3] else ["3"] for name in NAMES} | {
        "line\nend": ["9", "9"]
    }
    remove(tmp_path, TABLE)
    assert not list(tmp_path.iterdir())
    assert content(tmp_path) == {}


def test_a_journal_torn_anywhere_keeps_its_whole_files(tmp_path):
    ends = []
    for name in NAMES:
        append(tmp_path, 0, [(name, [1, 2])])
        ends.append((tmp_path / "test-0.csv").stat().st_size)
    path = tmp_path / "test-0.csv"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = content(tmp_path)
        assert kept == {name: ["1", "2"] for name, end in zip(NAMES, ends, strict=True) if end <= length}
        merge(tmp_path, TABLE)
        assert list(content(tmp_path).items()) == sorted(kept.items())
        remove(tmp_path, TABLE)


@pytest.mark.parametrize(
    "change", ["flip", "quote", "comma", "nul", "not UTF-8", "line", "empty line", "return", "cut"]
)
def test_what_is_damaged_anywhere_is_left_out_and_the_rest_kept(tmp_path, change):
    names = ("first", "a, b", "line\nend", "empty\n\nline", 'quote "', "\n\n", "last")
    append(tmp_path, 0, [(name, [1, 2]) for name in names])
    whole, before = (tmp_path / "test-0.csv").read_bytes(), content(tmp_path)
    inserted = {"quote": b'"', "comma": b",", "nul": b"\0", "line": b"\nx\n", "empty line": b"\n\n", "return": b"\r"}
    for place in range(len(whole)):
        new = inserted.get(change, {"flip": bytes([whole[place] ^ 4]), "not UTF-8": b"\xff"}.get(change, b""))
        (tmp_path / "test-0.csv").write_bytes(whole[:place] + new + whole[place + (change not in inserted) :])
        kept = content(tmp_path)
        whole_files = [name for name, values in kept.items() if values == before[name]]
        # Without the empty line between them two files form one block; another may be split in two.
        assert len(whole_files) >= len(before) - 2, place
        assert all(set(values) < set(before[name]) for name, values in kept.items() if name not in whole_files), place
    merge(tmp_path, TABLE)
    assert content(tmp_path) == kept


def test_a_torn_row_in_the_middle(tmp_path):
    append(tmp_path, 0, [(name, [1, 2]) for name in "abc"])
    path = tmp_path / "test-0.csv"
    blocks = path.read_bytes().split(b"\n\n")
    path.write_bytes(b"\n\n".join([*blocks[:2], blocks[2][:7], *blocks[3:]]))
    assert list(content(tmp_path)) == ["a", "c"]
    path.write_bytes(b"\n\n".join([*blocks[:2], bytes(5000), *blocks[3:]]))
    assert list(content(tmp_path)) == ["a", "c"]


def test_a_quote_that_is_never_closed_costs_one_file_and_no_memory(tmp_path):
    append(tmp_path, 0, [(f"{number:06}", ["x" * 2000]) for number in range(2000)])
    path = tmp_path / "test-0.csv"
    path.write_bytes(path.read_bytes().replace(b"000003,", b'"000003,'))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records(tmp_path, TABLE)) == 1999
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 2


def test_a_changed_time_is_no_damage_but_must_be_one(tmp_path):
    append(tmp_path, 0, [("a", [1])])
    path = tmp_path / "test-0.csv"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"0.5", b"0.7"))
    assert content(tmp_path) == {"a": ["1"]}
    path.write_bytes(whole.replace(b"0.5", b"0.x"))
    assert content(tmp_path) == {}


def test_files_of_the_users_own_stay(tmp_path):
    append(tmp_path, 0, [("a", [1])])
    for name in ("test-mine.csv", "test-01.csv", "test-0.csv.bak", "test--1.csv", "test-1 2.csv"):
        (tmp_path / name).write_text("mine")
    merge(tmp_path, TABLE)
    assert content(tmp_path) == {"a": ["1"]}
    remove(tmp_path, TABLE)
    assert len(list(tmp_path.iterdir())) == 5


def test_nothing_is_removed_beside_another_table(tmp_path):
    append(tmp_path, 0, [("a", [1])])
    (tmp_path / "test-7.csv").write_text("mine, of this name\n1,2\n")
    with pytest.raises(UsageError, match=r"test-7\.csv is a different table"):
        remove(tmp_path, TABLE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test-0.csv", "test-7.csv"]


@pytest.mark.parametrize("count", [3000])
def test_a_merge_holds_names_not_rows(tmp_path, count):
    append(tmp_path, 0, [(f"{number:06}", ["x" * 2000]) for number in range(count)])
    tracemalloc.start()
    try:
        merge(tmp_path, TABLE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(content(tmp_path)) == count
    assert peak < (tmp_path / "test.csv").stat().st_size / 4


def test_the_same_maps_give_the_same_bytes(tmp_path):
    maps = np.linspace(0, 1, 12, dtype=np.float16).reshape(1, 1, 1, 3, 4)
    data = [encode_maps(maps, ["m"], ["l"], [3], [0.5]) for _ in range(2)]
    assert data[0] == data[1]
    assert b"\x00\x00\x21\x00" in data[0][:40]  # the earliest time of the format, not the current one
    (tmp_path / "maps.npz").write_bytes(data[0])
    assert hash_file(tmp_path / "maps.npz") == hash_bytes(data[0])
    assert hash_file(tmp_path / "none.npz") == ""
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as file:
        assert np.array_equal(file["maps"], maps)


def test_another_table_is_refused_and_stays(tmp_path):
    append(tmp_path, 0, [("a", [1])])
    (tmp_path / "test.csv").write_text("file,value\n\na,1\n\n")
    for refused in (lambda: merge(tmp_path, TABLE), lambda: list(read_records(tmp_path, TABLE))):
        with pytest.raises(
            UsageError, match=r"test\.csv is a different table, with other columns or in another format"
        ):
            refused()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test-0.csv", "test.csv"]
