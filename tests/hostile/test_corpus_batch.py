"""The corpus, lists and damaged output through `holistic-cam batch`: exit codes as documented, nothing good is lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.batch.batch_tools import QUICK, make_pictures, rows, tree
from tests.hostile.corpus import CASES, base_picture, make_good, one_colour_png
from tests.hostile.outcome import Outcome, assert_explained, assert_told, run, run_bounded, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the low-pass wrap is zero")

PROGRAM = "holistic-cam batch"
INSIDE = "folder.jpg/inside.png"  # of the case that is a folder


def batch(source: Path, output: Path, *more: object) -> Outcome:
    return run("batch", source, "--output", output, *QUICK, "--workers", "0", *more)


def array(output: Path, name: str) -> np.ndarray:
    with np.load(output / "maps" / f"{name}.npz") as archive:
        return archive["maps"]


# The corpus, as one job.


@pytest.fixture(scope="module")
def job(corpus, tmp_path_factory):
    """The whole corpus as one job in a process of its own with a bound on its memory; then the same again."""
    output = tmp_path_factory.mktemp("job") / "output"
    around = corpus.parent, output.parent
    before = [snapshot(folder, output) for folder in around]
    command = ("batch", corpus, "--output", output, *QUICK, "--workers", "2", "--overlays", "--dtype", "float32")
    outcome = run_bounded(*command, more_mib=4096, seconds=300)
    assert [snapshot(folder, output) for folder in around] == before, "a file outside of the output folder"
    return output, outcome, command


def test_the_corpus_ends_as_documented(job):
    _, outcome, _ = job
    assert_explained(outcome, (1,))
    assert "Warning" not in outcome.err


def test_a_restart_keeps_all_of_it(job):
    output, outcome, command = job
    before = tree(output)
    again = run(*command[:-3], "--dtype", "float32", "--overlays")
    assert again.code == outcome.code, again
    assert tree(output) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_file_of_the_corpus_in_a_job(job, case, tmp_path):
    output, _, _ = job
    explained, failed = {row["file"] for row in rows(output)}, {row["file"] for row in rows(output, "errors.csv")}
    name = os.fsencode(case.name).decode("utf-8", errors="backslashreplace")
    if case.batch == "good":
        assert name in explained
        assert name not in failed
        saliency_map = array(output, name)
        assert np.isfinite(saliency_map).all()
        assert 0 <= saliency_map.min() <= saliency_map.max() <= 1
        assert (output / "overlays" / f"{name}.jpg").is_file()
    elif case.batch == "bad":
        assert name in failed
        assert name not in explained
    if case.same and case.batch == "good":
        assert np.array_equal(array(output, name), clean(tmp_path))


def test_every_failure_has_a_reason_without_a_path(job):
    output, _, _ = job
    for row in rows(output, "errors.csv"):
        assert row["reason"].strip()
        assert str(output.parent) not in row["reason"]
        assert "\n" not in row["reason"]


def test_a_folder_called_like_a_picture_is_looked_into(job, tmp_path):
    output, _, _ = job
    assert np.array_equal(array(output, INSIDE), clean(tmp_path))


def test_nothing_else_is_in_the_output(job):
    output, _, _ = job
    explained = {row["file"] for row in rows(output)}
    maps = {path.relative_to(output / "maps").as_posix().removesuffix(".npz") for path in output.rglob("*.npz")}
    assert maps == explained
    assert {path.name for path in output.iterdir()} <= {
        ".lock", "maps", "overlays", "manifest.csv", "errors.csv", "parameters.json",
    }  # fmt: skip


def test_the_corpus_has_a_report(job):
    output, _, _ = job
    outcome = run("report", output)
    assert_explained(outcome)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "<b>&amp;.png" not in page
    assert "&lt;b&gt;&amp;amp;.png" in page


_clean: list[np.ndarray] = []


def clean(folder: Path) -> np.ndarray:
    """The base picture's map, of a job that has nothing else."""
    if not _clean:
        (folder / "clean").mkdir()
        make_good(folder / "clean" / "base.png")
        assert_explained(batch(folder / "clean", folder / "clean maps", "--dtype", "float32"))
        _clean.append(array(folder / "clean maps", "base.png"))
    return _clean[0]


# What one name or size must not do to the others.


def test_maps_of_one_picture_that_lie_where_another_has_its_folder(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "a.png.npz").mkdir(parents=True)
    for name in ("a.png", "a.png.npz/b.png", "c.png"):
        make_good(pictures / name)
    for _ in range(2):
        outcome = batch(pictures, tmp_path / "output", "--overlays")
        assert_explained(outcome, (0, 1))
        explained = {row["file"] for row in rows(tmp_path / "output")}
        failed = {row["file"] for row in rows(tmp_path / "output", "errors.csv")}
        assert "c.png" in explained
        assert explained | failed == {"a.png", "a.png.npz/b.png", "c.png"}


@pytest.mark.parametrize("size", [(2600, 3), (1, 5000)], ids=str)
def test_a_long_picture_does_not_end_the_job(tmp_path, size):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    make_good(pictures / "good.png")
    make_good(pictures / "z good.png")
    base_picture().resize(size).save(pictures / "long.png")
    command = ("batch", pictures, "--output", tmp_path / "output", *QUICK, "--workers", "0", "--no-crop")
    outcome = run_bounded(*command, more_mib=3072)
    assert_explained(outcome, (1,))
    assert {row["file"] for row in rows(tmp_path / "output")} == {"good.png", "z good.png"}


def test_a_name_that_a_csv_can_give_and_a_folder_can_not(tmp_path):
    assert_told(batch(tmp_path / "no such folder", tmp_path / "output"), PROGRAM)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["out\nput", "Ü 図", "-o", "[a]*", "a$_$"])
def test_an_output_folder_of_any_name(tmp_path, name):
    make_pictures(tmp_path / "pictures", 1)
    outcome = batch(tmp_path / "pictures", tmp_path / name)
    assert_explained(outcome)
    assert_explained(run("report", tmp_path / name))
    assert (tmp_path / name / "report.html").is_file()


# Lists.

HUGE = "x" * 200_000
# The list, and the exit codes that it may have. Two good pictures are there: "picture 0.jpg", "deeper/picture 1.jpg".
LISTS = {
    "empty": (b"", (2,)),
    "a header alone": (b"file,target\n", (2,)),
    "no column file": (b"path,target\npicture 0.jpg,1\n", (2,)),
    "column in capitals": (b"FILE\npicture 0.jpg\n", (0, 2)),
    "a byte-order mark": (b"\xef\xbb\xbffile\npicture 0.jpg\ndeeper/picture 1.jpg\n", (0,)),
    "UTF-16": ("file\npicture 0.jpg\n".encode("utf-16"), (2,)),
    "not UTF-8": (b"file\npicture 0.jpg\nb\xe4r.jpg\n", (1, 2)),
    "NULs": (b"file\npicture 0.jpg\na\0b.jpg\n", (1, 2)),
    "NUL bytes alone": (bytes(1000), (2,)),
    "a row without a file": (b"target,file\n1,picture 0.jpg\n1\n", (2,)),
    "an empty file": (b"file,target\npicture 0.jpg,1\n,1\n", (2,)),
    "empty rows": (b"file\n\n\npicture 0.jpg\n\n\n", (0,)),
    "too many values": (b"file,target\npicture 0.jpg,1,2,3\n", (0, 2)),
    "two columns file": (b"file,file\npicture 0.jpg,deeper/picture 1.jpg\n", (2,)),
    "two columns target": (b"file,target,target\npicture 0.jpg,1,2\n", (2,)),
    "a file that is not there": (b"file\npicture 0.jpg\nnowhere.jpg\n", (1,)),
    "a folder": (b"file\npicture 0.jpg\ndeeper\n", (1,)),
    "the root": (b"file\n.\n", (2,)),
    "above the root": (b"file\npicture 0.jpg\n../secret.jpg\n", (2,)),
    "above the root on a detour": (b"file\ndeeper/../../secret.jpg\n", (2,)),
    "an absolute path elsewhere": (b"file\n/etc/passwd\n", (2,)),
    "a trailing slash": (b"file\npicture 0.jpg/\n", (0, 1, 2)),
    "backslashes": (b"file\npicture 0.jpg\ndeeper\\picture 1.jpg\n", (1,)),
    "spaces around": (b"file\npicture 0.jpg\n  picture 0.jpg\n", (0, 1)),
    "an unknown class": (b"file,target\npicture 0.jpg,cat\n", (2,)),
    "a class out of range": (b"file,target\npicture 0.jpg,10\n", (2,)),
    "class -1": (b"file,target\npicture 0.jpg,-1\n", (2,)),
    "class --5": (b"file,target\npicture 0.jpg,--5\n", (2,)),
    "class -": (b"file,target\npicture 0.jpg,-\n", (2,)),
    "a class of 5,000 digits": (b"file,target\npicture 0.jpg," + b"9" * 5000 + b"\n", (2,)),
    "a class in other digits": ("file,target\npicture 0.jpg,٣\n".encode(), (0, 2)),
    "a class with a superscript": ("file,target\npicture 0.jpg,²\n".encode(), (2,)),
    "a class as a float": (b"file,target\npicture 0.jpg,1.0\n", (2,)),
    "a class nan": (b"file,target\npicture 0.jpg,nan\n", (2,)),
    "duplicates": (b"file,target\npicture 0.jpg,1\npicture 0.jpg,1\n./picture 0.jpg,digit 1\n", (0,)),
    "an open quote": (b'file,target\n"picture 0.jpg,1\ndeeper/picture 1.jpg,2\n', (1, 2)),
    "a quote within": (b'file\npicture 0.jpg\npic"ture 0.jpg\n', (1, 2)),
    "text behind a quote": (b'file,target\n"picture 0.jpg"x,1\n', (1, 2)),
    "a carriage return in a name": (b'file\npicture 0.jpg\n"a\rb.jpg"\n', (1, 2)),
    "a newline in a name": (b'file\npicture 0.jpg\n"a\nb.jpg"\n', (1, 2)),
    "empty lines in a name": (b'file\npicture 0.jpg\n"a\n\n\nb.jpg"\n', (1, 2)),
    "old Mac line endings": (b"file\rpicture 0.jpg\rdeeper/picture 1.jpg\r", (0, 2)),
    "a name of 200,000 letters": (f"file\npicture 0.jpg\n{HUGE}\n".encode(), (1, 2)),
    "a name of 5,000 letters": (f"file\npicture 0.jpg\n{HUGE[:5000]}\n".encode(), (1, 2)),
    "semicolons": (b"file;target\npicture 0.jpg;1\n", (2,)),
    "tabs": (b"file\ttarget\npicture 0.jpg\t1\n", (2,)),
    "a surrogate": (b"file\npicture 0.jpg\n\xed\xb3\xbf.jpg\n", (1, 2)),
    "a picture": (None, (2,)),
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Two pictures, and a third one that no list may reach."""
    folder = tmp_path_factory.mktemp("lists")
    make_pictures(folder / "root", 2)
    make_good(folder / "secret.jpg")
    return folder


@pytest.mark.parametrize("title", LISTS)
def test_a_list(listed, tmp_path, title):
    data, codes = LISTS[title]
    path = tmp_path / "list.csv"
    path.write_bytes(one_colour_png(100) if data is None else data)
    before = snapshot(tmp_path, tmp_path / "output")
    outcomes = [batch(path, tmp_path / "output", "--root", listed / "root") for _ in range(2)]
    assert snapshot(tmp_path, tmp_path / "output") == before
    for outcome in outcomes:
        if outcome.code == 2:
            assert_told(outcome, PROGRAM)
            assert len(outcome.err) < 1000, "a line that nobody reads"
        assert_explained(outcome, codes)
    assert outcomes[0].code == outcomes[1].code
    if outcomes[0].code != 2:
        explained = {row["file"] for row in rows(tmp_path / "output")}
        assert (outcomes[0].code == 1) == bool(rows(tmp_path / "output", "errors.csv"))
        assert "picture 0.jpg" in explained or b'"picture 0.jpg' in data or b"jpg/" in data
        assert explained <= {"picture 0.jpg", "deeper/picture 1.jpg"}


def test_a_list_through_a_linked_root(listed, tmp_path):
    (tmp_path / "link").symlink_to(listed / "root")
    path = tmp_path / "list.csv"
    path.write_text(f"file\n{tmp_path / 'link' / 'picture 0.jpg'}\n")
    assert_explained(batch(path, tmp_path / "output", "--root", tmp_path / "link"))


# Output that somebody damaged.


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
