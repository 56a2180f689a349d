"""The record of a run."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from holistic_cam_plugin.batch.record import RECORD, Record, read_record
from holistic_cam_plugin.errors import OutputError, UsageError

IMPORTS = "from pathlib import Path; from holistic_cam_plugin.batch.record import *"
IMAGE = {"file": "a.png", "bytes": 10, "modified": 5, "state": "explained", "reason": "", "predicted": 1}
MAPS = [
    {"method": "gradcam", "layer": "layer4", "target": target, "class": f"class {target}", "coverage": 0.5}
    for target in (3, 1)
]


def read_all(record: Record, table: str) -> list[dict[str, object]]:
    return [dict(row) for row in record.connection.execute(f"SELECT * FROM {table}")]


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    with Record(tmp_path / RECORD, write=True) as record:
        record.set_parameters({"sizes": [224, 448], "crop": True}, ["cat", "dog"])
        record.add(IMAGE, MAPS)
    with read_record(tmp_path) as record:
        assert record.parameters == {"sizes": [224, 448], "crop": True}
        assert record.classes == ["cat", "dog"]
        (image,) = read_all(record, "images")
        assert {key: image[key] for key in IMAGE} == IMAGE
        assert image["label"] is None
        assert [(row["target"], row["place"], row["file"]) for row in read_all(record, "maps")] == [
            (3, 0, "a.png"), (1, 1, "a.png"),
        ]  # fmt: skip


def test_an_image_replaces_its_earlier_rows(tmp_path: Path) -> None:
    with Record(tmp_path / RECORD, write=True) as record:
        record.add(IMAGE, MAPS)
        record.add({"file": "a.png", "state": "failed", "reason": "empty file"})
        assert read_all(record, "maps") == []
        assert [row["reason"] for row in read_all(record, "images")] == ["empty file"]


def test_an_image_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    with Record(tmp_path / RECORD, write=True) as record:
        record.add(IMAGE, MAPS[:1])
        with pytest.raises(sqlite3.IntegrityError):
            record.add({**IMAGE, "bytes": 99}, [*MAPS, MAPS[0]])
        assert [row["bytes"] for row in read_all(record, "images")] == [10]
        assert len(read_all(record, "maps")) == 1


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    with Record(tmp_path / RECORD, write=True) as record:
        record.add(IMAGE)
        code = f"{IMPORTS}; Record(Path({str(tmp_path / RECORD)!r}), write=True)"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another run is using" in second.stderr
        with Record(tmp_path / RECORD) as reader:
            assert len(read_all(reader, "images")) == 1
    Record(tmp_path / RECORD, write=True).close()


def test_a_killed_writer_leaves_its_images_and_no_lock(tmp_path: Path) -> None:
    code = (
        f"{IMPORTS}; import time\n"
        f"record = Record(Path({str(tmp_path / RECORD)!r}), write=True); record.add({IMAGE!r})\n"
        "print('added', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"added\n"
        process.send_signal(signal.SIGKILL)
    with Record(tmp_path / RECORD, write=True) as record:
        assert [row["file"] for row in read_all(record, "images")] == ["a.png"]


@pytest.mark.parametrize("name", [RECORD, ".lock"])
@pytest.mark.parametrize("kind", ["text", "link to a text", "pipe", "folder"])
def test_a_foreign_file_in_the_records_place_is_refused_and_kept(tmp_path: Path, name: str, kind: str) -> None:
    text = tmp_path / ("thesis.txt" if "link" in kind else name)
    if kind == "pipe":
        os.mkfifo(text)
    elif kind == "folder":
        text.mkdir()
    else:
        text.write_text("many pages " * 100)
    if "link" in kind:
        (tmp_path / name).symlink_to(text)
    with pytest.raises((UsageError, OutputError)):
        Record(tmp_path / RECORD, write=True)
    if "text" in kind:
        assert text.read_text() == "many pages " * 100


def test_another_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / RECORD)
    connection.execute("CREATE TABLE addresses (name TEXT)")
    connection.close()
    for write in (False, True):
        with pytest.raises(UsageError, match="not the record of a run"):
            Record(tmp_path / RECORD, write=write)


def test_a_folder_without_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no record\.sqlite"):
        read_record(tmp_path)
