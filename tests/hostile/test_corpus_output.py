"""Output that somebody damaged: made again, or refused in a line; what the run did not write stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.batch.batch_tools import make_pictures, rows, tree
from tests.hostile.outcome import Outcome, assert_explained, assert_told, batch, run, snapshot

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]

PROGRAM = "holistic-cam batch"


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _full_folder(path: Path) -> None:
    _folder(path)
    (path / "mine.txt").write_text("mine")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _linked(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere.npz")
    path.symlink_to(path.parents[2] / "elsewhere.npz")
    _truncated(path)


DAMAGE = [_truncated, _emptied, _flipped, Path.unlink, _folder, _full_folder, _pipe, _dangling, _loop, _linked]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished job of two pictures with overlays."""
    folder = tmp_path_factory.mktemp("whole")
    make_pictures(folder / "pictures", 2)
    assert_explained(batch(folder / "pictures", folder / "output", "--overlays"))
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole / "output", tmp_path / "output")
    return tmp_path / "output"


def _again(whole: Path, output: Path) -> Outcome:
    return batch(whole / "pictures", output, "--overlays", "--verify")


@pytest.mark.parametrize("name", ["maps/picture 0.jpg.npz", "overlays/picture 0.jpg.jpg"])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
def test_a_damaged_file_of_a_picture_is_made_again(whole, copy, damage, name):
    if damage is _flipped and name.startswith("overlays"):
        pytest.skip("a JPEG has no checksum")
    damage(copy / name)
    before = snapshot(copy.parent, copy)
    outcome = _again(whole, copy)
    assert snapshot(copy.parent, copy) == before
    if damage is _full_folder:  # what lies there is the user's: it stays, and that image alone has no map
        assert_explained(outcome, (1,))
        assert (copy / name / "mine.txt").read_text() == "mine"
        assert [row["file"] for row in rows(copy, "errors.csv")] == ["picture 0.jpg"]
    else:
        assert_explained(outcome, (0, 1) if damage is _folder else (0,))
        assert outcome.code == 1 or tree(copy) == tree(whole / "output")


def _wiped(data: bytes) -> bytes:
    return data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * len(data) // 3 :]


RECORDS = {
    "emptied": lambda data: b"",
    "torn": lambda data: data[: len(data) // 2],
    "wiped in the middle": _wiped,
    "another table": lambda data: b"a,b\n1,2\n" * 99,
    "binary": lambda data: bytes(range(256)) * 20,
    "other JSON": lambda data: data.replace(b'"digits"', b"{digits"),
}


@pytest.mark.parametrize("command", ["batch", "report"])
@pytest.mark.parametrize("title", RECORDS)
def test_a_damaged_record(whole, copy, title, command):
    (copy / "record.sqlite").write_bytes(RECORDS[title]((copy / "record.sqlite").read_bytes()))
    outcome = _again(whole, copy) if command == "batch" else run("report", copy)
    assert_explained(outcome, (0, 2, 3))
    if outcome.code:
        assert_told(outcome, f"holistic-cam {command}", (2, 3))
        assert "record" in outcome.err
    elif command == "batch":
        assert tree(copy) == tree(whole / "output")


FOREIGN = [
    "manifest-mine.csv", "record.sqlite.bak", ".part-mine", "maps/notes.txt", "report.txt", "maps/.part-mine",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_the_run_did_not_write_stays(whole, copy, name, kind):
    path = copy / name
    if kind == "file":
        path.write_text("mine\n")
    else:
        path.mkdir()
        (path / "mine.txt").write_text("mine\n")
    assert_explained(_again(whole, copy))
    assert (path if kind == "file" else path / "mine.txt").read_text() == "mine\n"


def test_a_folder_where_a_table_should_go(whole, copy):
    for name in ("manifest.csv", "errors.csv", "record.sqlite", ".lock"):
        other = copy.parent / f"with a folder {name}"
        shutil.copytree(copy, other)
        (other / name).unlink(missing_ok=True)
        (other / name).mkdir()
        outcome = _again(whole, other)
        assert_told(outcome, PROGRAM, (2, 3))
        assert (other / name).is_dir()
