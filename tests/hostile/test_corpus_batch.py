"""The corpus, lists and damaged output through `holistic-cam batch`: exit codes as documented, nothing good is lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.batch.batch_tools import QUICK, make_pictures, rows, tree
from tests.hostile.corpus import CASES, base_picture, make_good
from tests.hostile.outcome import WELCOME, assert_explained, assert_told, batch, run, run_bounded, snapshot

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]

PROGRAM = "holistic-cam batch"
INSIDE = "folder.jpg/inside.png"  # of the case that is a folder


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
    outcome = run_bounded(*command, more_mib=4096)
    assert [snapshot(folder, output) for folder in around] == before, "a file outside of the output folder"
    return output, outcome, command


def test_the_corpus_ends_as_documented(job):
    _, outcome, _ = job
    assert_explained(outcome, (1,))
    noise = [line for line in outcome.err.splitlines() if "Warning" in line and not any(map(line.count, WELCOME))]
    assert not noise


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
        ".lock", "maps", "overlays", "manifest.csv", "manifest.parquet", "errors.csv", "record.sqlite",
    }  # fmt: skip


def test_the_corpus_has_a_report(job):
    output, _, _ = job
    outcome = run("report", output)
    assert_explained(outcome)
    page = (output / "report" / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert r"\u003cb\u003e\u0026amp;.png" in page  # in the page's data


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
    assert (tmp_path / name / "report" / "index.html").is_file()
