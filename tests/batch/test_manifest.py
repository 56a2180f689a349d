"""Journals that can be torn anywhere, and what is made of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from holistic_cam_plugin.batch.manifest import Journal, Table, merge, recorded, remove
from holistic_cam_plugin.batch.store import checksum, file_checksum, map_bytes

TABLE = Table("test", ("file", "value", "parameters"))
DIGEST = "0123456789ab"
NAMES = ("plain", 'quote "', "comma, ", "line\nend", "Ünï\r\ncode", "")


def append(folder, rank, entries):
    with Journal(folder, TABLE, rank, DIGEST) as journal:
        for name, values in entries:
            journal.append([{"file": name, "value": value} for value in values])


def content(folder):
    return {rows[0]["file"]: [row["value"] for row in rows] for rows in recorded(folder, TABLE, DIGEST)}


def test_journals_merge_into_one_sorted_table_that_pandas_reads(tmp_path):
    append(tmp_path, 0, [(name, [1, 2]) for name in NAMES[:3]])
    append(tmp_path, 1, [(name, [3]) for name in NAMES[3:]])
    assert content(tmp_path) == {name: ["1", "2"] if name in NAMES[:3] else ["3"] for name in NAMES}
    assert len(pd.read_csv(tmp_path / "test-0.csv")) == 6
    merge(tmp_path, TABLE, DIGEST)
    assert [path.name for path in tmp_path.iterdir()] == ["test.csv"]
    table = pd.read_csv(tmp_path / "test.csv", keep_default_na=False)
    assert table["file"].tolist() == sorted([*NAMES[:3], *NAMES])
    merged = (tmp_path / "test.csv").read_bytes()
    merge(tmp_path, TABLE, DIGEST)
    assert (tmp_path / "test.csv").read_bytes() == merged
    append(tmp_path, 0, [("line\nend", [9, 9])])
    merge(tmp_path, TABLE, DIGEST)
    assert content(tmp_path) == {name: ["1", "2"] if name in NAMES[:3] else ["3"] for name in NAMES} | {
        "line\nend": ["9", "9"]
    }
    remove(tmp_path, TABLE)
    assert not list(tmp_path.iterdir())
    assert content(tmp_path) == {}


def test_a_journal_torn_anywhere_keeps_its_whole_rows(tmp_path):
    append(tmp_path, 0, [(name, [1, 2]) for name in NAMES])
    path = tmp_path / "test-0.csv"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        values = [(name, value) for name, some in content(tmp_path).items() for value in some]
        assert values == [(name, value) for name in NAMES for value in "12"][: len(values)]
        assert len(values) >= whole[:length].count(f",{DIGEST}\n".encode())
        merge(tmp_path, TABLE, DIGEST)
        assert [(name, value) for name, some in content(tmp_path).items() for value in some] == sorted(values)
        remove(tmp_path, TABLE)


@pytest.mark.parametrize("count", [3000])
def test_a_merge_holds_names_not_rows(tmp_path, count):
    append(tmp_path, 0, [(f"{number:06}", ["x" * 2000]) for number in range(200)])
    header, row = (tmp_path / "test-0.csv").read_text().splitlines()[:2]
    lines = (row.replace("000000", f"{number:06}") for number in range(count))
    (tmp_path / "test-0.csv").write_text("\n".join([header, *lines, ""]))
    tracemalloc.start()
    try:
        merge(tmp_path, TABLE, DIGEST)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(content(tmp_path)) == count
    assert peak < (tmp_path / "test.csv").stat().st_size / 4


def test_the_same_maps_give_the_same_bytes(tmp_path):
    maps = np.linspace(0, 1, 12, dtype=np.float16).reshape(1, 1, 1, 3, 4)
    data = [map_bytes(maps, ["m"], ["l"], [3], [0.5]) for _ in range(2)]
    assert data[0] == data[1]
    assert b"\x00\x00\x21\x00" in data[0][:40]  # the earliest time that the format has, not today's
    (tmp_path / "maps.npz").write_bytes(data[0])
    assert file_checksum(tmp_path / "maps.npz") == checksum(data[0])
    assert file_checksum(tmp_path / "none.npz") == ""
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as file:
        assert np.array_equal(file["maps"], maps)
