"""Output that somebody damaged: made again, or refused in a line; what the run did not write stays."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.batch.batch_tools import make_pictures, rows, tree
from tests.hostile.outcome import Outcome, assert_explained, assert_told, batch, run, run_bounded, snapshot

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
    return batch(whole / "pictures", output, "--overlays")


@pytest.mark.parametrize("name", ["maps/picture 0.jpg.npz", "overlays/picture 0.jpg.jpg"])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
def test_a_damaged_file_of_a_picture_is_made_again(whole, copy, damage, name):
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


TABLES = {
    "emptied": lambda data: b"",
    "torn in the first line": lambda data: data[:20],
    "torn in the middle": lambda data: data[: len(data) * 2 // 3],
    "a byte that is not UTF-8": lambda data: data.replace(b"picture", b"pict\xffure", 1),
    "an extra quote": lambda data: data.replace(b"picture", b'"picture', 1),
    "a dropped comma": lambda data: data[:400].replace(b",", b"", 3) + data[400:],
    "NULs": lambda data: data.replace(b"picture", b"\0\0\0", 1),
    "other line endings": lambda data: data.replace(b"\n", b"\r\n"),
    "a byte-order mark": lambda data: b"\xef\xbb\xbf" + data,
    "another table": lambda data: b"a,b\n1,2\n",
    "binary": lambda data: bytes(range(256)) * 20,
    "a row twice": lambda data: data + data.split(b"\n\n")[1] + b"\n\n",
    "no empty lines": lambda data: data.replace(b"\n\n", b"\n"),
    "only empty lines": lambda data: b"\n" * 500,
    "a number that is none": lambda data: data.replace(b",40,", b",forty,"),
    "a number of 5,000 digits": lambda data: data.replace(b",40,", b"," + b"4" * 5000 + b","),
    "a value of 200,000 letters": lambda data: data.replace(b"picture", b"p" * 200_000, 1),
}


@pytest.mark.parametrize("journal", ["manifest.csv", "manifest-0.csv", "errors.csv", "errors-0.csv"])
@pytest.mark.parametrize("title", TABLES)
def test_a_damaged_table(whole, copy, title, journal):
    path = copy / journal
    path.write_bytes(TABLES[title]((copy / f"{journal.split('.')[0].split('-')[0]}.csv").read_bytes()))
    outcome = _again(whole, copy)
    assert_explained(outcome, (0, 2))
    if outcome.code == 2:  # not ours: left as it is, and named
        assert_told(outcome, PROGRAM)
        assert journal in outcome.err
    else:
        assert {name: data for name, data in tree(copy).items() if name != journal or "-" not in name} == tree(
            whole / "output"
        )


PARAMETERS = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "text": b'"text"',
    "an empty object": b"{}",
    "binary": bytes(range(256)),
    "torn": b'{"input": "x", "model": ',
    "deeply nested": b"[" * 100_000,
    "a number of 5,000 digits": b'{"threads": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("command", ["batch", "report"])
@pytest.mark.parametrize("title", PARAMETERS)
def test_a_damaged_parameters_file(whole, copy, title, command):
    (copy / "parameters.json").write_bytes(PARAMETERS[title])
    before = tree(copy)
    outcome = _again(whole, copy) if command == "batch" else run("report", copy)
    assert_told(outcome, f"holistic-cam {command}")
    assert tree(copy) == before, "what a refused run left alone"


@pytest.mark.parametrize(
    "changed",
    [
        *({"threads": value} for value in (None, 0, -1, 1.5, "2", [], {}, True, 1e400)),
        *({"input": value} for value in (None, 3, [])),
        {"resize": "x"}, {"crop": []}, {"versions": None}, {"layers": 3},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("command", ["batch", "report"])
def test_odd_parameters(whole, copy, changed, command):
    path = copy / "parameters.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    if command == "report":
        outcome = run("report", copy)
        assert_explained(outcome, (0, 2))
    else:  # without --threads, which would be told from the file's
        outcome = run(
            "batch", whole / "pictures", "--output", copy, "--model", "digits", "--sizes", "64", "--device", "cpu",
            "--workers", "0", "--overlays",
        )  # fmt: skip
        assert_explained(outcome, (0,) if changed.keys() == {"input"} else (0, 2))
    if outcome.code == 2:
        assert_told(outcome, f"holistic-cam {command}")


@pytest.mark.parametrize("threads", [10**9, 100_000])
def test_more_threads_than_a_machine_has(whole, copy, threads):
    path = copy / "parameters.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threads": threads}))
    command = ("batch", whole / "pictures", "--output", copy, "--model", "digits", "--sizes", "64", "--overlays")
    for more in ((), ("--threads", threads)):  # a process of its own: it may be a segmentation fault
        assert_told(run_bounded(*command, *more), PROGRAM)


FOREIGN = [
    "manifest-mine.csv", "errors-mine.csv", "manifest-2024-01-01.csv", "manifest-0.csv.bak", ".part-mine", ".part-list",
    "maps/notes.txt", "report.txt", "manifest-.csv", "errors--1.csv", "manifest-00.csv", "maps/.part-mine",
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
    for name in ("manifest.csv", "errors.csv", "manifest-0.csv", "parameters.json", ".lock"):
        other = copy.parent / f"with a folder {name}"
        shutil.copytree(copy, other)
        (other / name).unlink(missing_ok=True)
        (other / name).mkdir()
        outcome = _again(whole, other)
        assert_told(outcome, PROGRAM, (2, 3))
        assert (other / name).is_dir()


def test_a_report_of_rows_that_lead_elsewhere(whole, copy):
    """A table may come from a stranger: its rows name no file outside of the folder."""
    (copy.parent / "secret.txt").write_text("secret")
    table = list(csv.reader((copy / "manifest.csv").open(encoding="utf-8", newline="")))
    place = table[0].index("map")
    with (copy / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in table:
            if row and row[place] != "map":
                row[place] = "../secret.txt"
            writer.writerow(row)
    outcome = run("report", copy)
    assert_explained(outcome, (0, 2))
