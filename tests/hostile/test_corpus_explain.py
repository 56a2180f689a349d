"""The corpus, its names and odd arguments through `holistic-cam`: a figure, or one line and exit code 2."""

from __future__ import annotations

import os
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from tests.cli.notes import drop_notes
from tests.hostile.corpus import CASES, base_picture, make_good
from tests.hostile.outcome import assert_explained, assert_told, run, run_bounded, snapshot
from tests.models.files import MODEL, make_weights

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]

PROGRAM = "holistic-cam"
QUICK = ("--layers", "features.12", "--methods", "layercam", "--device", "cpu", "--save-array")
# In processes of their own, with a bound on their memory.
LARGE = ("100 megapixels", "900 megapixels")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return "--model", MODEL, "--weights", make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def small_figures(monkeypatch):
    """Drawing takes most of the time."""
    monkeypatch.setattr("holistic_cam_plugin.display.figure.DPI", 20, raising=False)


@pytest.fixture(scope="module")
def clean(model, tmp_path_factory):
    """The base picture's map, of a run that has nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    make_good(folder / "base.png")
    assert_explained(run(folder / "base.png", *model, *QUICK, "--output", folder / "output"))
    (path,) = (folder / "output").glob("*.npy")
    return np.load(path)


def explained(output):
    """The only map of an output folder, whose figure can be opened."""
    (figure,) = output.glob("*.png")
    with Image.open(figure) as picture:
        picture.load()
    (path,) = output.glob("*.npy")
    saliency_map = np.load(path)
    assert saliency_map.dtype == np.float32
    assert saliency_map.shape == (224, 224)
    assert np.isfinite(saliency_map).all()
    assert 0 <= saliency_map.min() <= saliency_map.max() <= 1
    return saliency_map


@pytest.mark.parametrize("case", [case for case in CASES if case.title not in LARGE], ids=lambda case: case.title)
def test_a_file_of_the_corpus(corpus, model, clean, tmp_path, case):
    before = snapshot(tmp_path, tmp_path / "output"), snapshot(corpus, tmp_path)
    outcome = run(corpus / case.name, *model, *QUICK, "--output", tmp_path / "output")
    assert (snapshot(tmp_path, tmp_path / "output"), snapshot(corpus, tmp_path)) == before
    if case.explain == "bad" or (case.explain == "either" and outcome.code == 2):
        assert_told(outcome, PROGRAM)
        assert not list(tmp_path.rglob("*.png"))
        return
    assert_explained(outcome)
    assert drop_notes(outcome.err) == ""
    saliency_map = explained(tmp_path / "output")
    if case.same:
        assert np.array_equal(saliency_map, clean)


@pytest.mark.parametrize("title", LARGE)
def test_a_large_file_in_bounded_memory(corpus, model, tmp_path, title):
    (case,) = [case for case in CASES if case.title == title]
    outcome = run_bounded(corpus / case.name, *model, *QUICK, "--output", tmp_path / "output", more_mib=2048)
    if case.explain == "bad":
        assert_told(outcome, PROGRAM)
    else:
        assert_explained(outcome)
        assert drop_notes(outcome.err) == ""
        explained(tmp_path / "output")


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (2600, 3)], ids=str)
def test_a_long_picture_in_bounded_memory(model, tmp_path, size):
    base_picture().resize(size).save(tmp_path / "long.png")
    outcome = run_bounded(tmp_path / "long.png", *model, *QUICK, "--output", tmp_path / "output", more_mib=1536)
    if outcome.code == 0:
        assert drop_notes(outcome.err) == ""
        explained(tmp_path / "output")
    else:
        assert_told(outcome, PROGRAM)
        assert "long.png" in outcome.err


def test_names_that_differ_in_what_a_figure_s_name_leaves_out(model, clean, tmp_path):
    names = ["a b.png", "a_b.png", "a\tb.png", "a_b_2.png", "a b.jpg", "sub/a b.png", "..png", "...png"]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in names:
        make_good(tmp_path / "in" / name)
    paths = [tmp_path / "in" / name for name in names]
    before = snapshot(tmp_path, tmp_path / "output")
    outcome = run(*paths, *model, *QUICK, "--output", tmp_path / "output")
    assert snapshot(tmp_path, tmp_path / "output") == before
    assert_explained(outcome)
    assert len(list((tmp_path / "output").glob("*_holistic_cam.png"))) == len(names)
    maps = list((tmp_path / "output").glob("*.npy"))
    assert len(maps) == len(names)
    assert all(np.array_equal(np.load(path), clean) for path in maps)


def test_names_that_differ_in_case(model, tmp_path):
    """A file system may hold both for one: that of macOS or of Windows, to which an output folder is copied."""
    for name in ("cat.png", "Cat.png"):
        make_good(tmp_path / name)
    outcome = run(tmp_path / "cat.png", tmp_path / "Cat.png", *model, *QUICK, "--output", tmp_path / "output")
    assert_explained(outcome)
    assert len({path.name.lower() for path in (tmp_path / "output").glob("*.png")}) == 2


def test_one_bad_picture_of_several_is_named_before_any_work(model, tmp_path):
    make_good(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    outcome = run(tmp_path / "good.png", tmp_path / "bad.png", *model, *QUICK, "--output", tmp_path / "output")
    assert_told(outcome, PROGRAM)
    assert "bad.png" in outcome.err
    assert not (tmp_path / "output").exists()


def test_a_picture_given_twice(model, tmp_path):
    make_good(tmp_path / "a.png")
    outcome = run(tmp_path / "a.png", tmp_path / "a.png", *model, *QUICK, "--output", tmp_path / "output")
    assert_explained(outcome)
    assert len(list((tmp_path / "output").glob("*.npy"))) == 1  # it is taken once


def test_a_name_behind_two_dashes(model, clean, tmp_path, monkeypatch):
    make_good(tmp_path / "-x.png")
    monkeypatch.chdir(tmp_path)
    assert_explained(run(*model, *QUICK, "--output", "output", "--", "-x.png"))
    assert np.array_equal(explained(tmp_path / "output"), clean)


# Arguments.

ARGUMENTS = {
    "an empty path": ("",),
    "a path of 5,000 letters": ("x" * 5000,),
    "a NUL in the path": ("a\0b.png",),
    "a glob": ("*.png",),
    "an address": ("https://example.org/cat.png",),
    "target -1": ("good.png", "--target", "-1"),
    "target --5": ("good.png", "--target=--5"),
    "target -": ("good.png", "--target", "-"),
    "target ²": ("good.png", "--target", "²"),
    "a target of 5,000 digits": ("good.png", "--target", "9" * 5000),
    "a target of 200,000 letters": ("good.png", "--target", "x" * 200_000),
    "an empty target": ("good.png", "--target", ""),
    "an empty layer": ("good.png", "--layers", ""),
    "layer with a NUL": ("good.png", "--layers", "features\0"),
    "an empty method": ("good.png", "--methods", ""),
    "a method of 100,000 letters": ("good.png", "--methods", "x" * 100_000),
    "device meta": ("good.png", "--device", "meta"),
    "device xla": ("good.png", "--device", "xla"),
    "device cpu:7": ("good.png", "--device", "cpu:7"),
    "device cuda:-1": ("good.png", "--device", "cuda:-1"),
    "an empty device": ("good.png", "--device", ""),
    "an empty model": ("good.png", "--model", ""),
    "a dotted model": ("good.png", "--model", "__class__"),
    "a segmentation model": ("good.png", "--model", "fcn_resnet50"),
    "a transformer": ("good.png", "--model", "vit_b_16"),
    "an empty output": ("good.png", "--output", "good.png"),
    "an output below a file": ("good.png", "--output", "good.png/below"),
    "an output with a NUL": ("good.png", "--output", "a\0b"),
    "an output of 5,000 letters": ("good.png", "--output", "x" * 5000),
    "labels in a folder": ("good.png", "--labels", "."),
    "labels in a picture": ("good.png", "--labels", "good.png"),
    "weights in a picture": ("good.png", "--weights", "good.png"),
    "weights in a folder": ("good.png", "--weights", "."),
    "an option that is none": ("good.png", "--methds", "gradcam"),
    "labels that are not there": ("good.png", "--labels", "none.txt"),
}


@pytest.mark.parametrize("title", ARGUMENTS)
def test_an_argument_that_can_t_be_meant(model, tmp_path, monkeypatch, title):
    make_good(tmp_path / "good.png")
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path, tmp_path / "nothing")
    arguments = ARGUMENTS[title]
    given = () if {"--weights", "--model"} & set(arguments) else model
    outcome = run(*given, *(() if "--layers" in arguments else QUICK[:2]), *arguments)
    if title == "device cpu:7" and outcome.code == 0:
        pytest.skip("PyTorch takes it for the CPU")
    assert_told(outcome, PROGRAM)
    assert len(outcome.err) < 2500, "a line that nobody reads"
    assert not [path for path in tmp_path.rglob("*") if os.fsencode(path) not in before and path.is_file()]


@pytest.mark.parametrize(
    "twice",
    [("--target", "1", "1"), ("--target", "1", "ant", "class 1"), ("--layers", "features.12", "features.12"),
     ("--methods", "layercam", "layercam"), ("--methods", "gradcam++", "Grad-CAM++")],
    ids=" ".join,
)  # fmt: skip
def test_something_given_twice(model, tmp_path, twice):
    make_good(tmp_path / "good.png")
    outcome = run(tmp_path / "good.png", *model, *QUICK, *twice, "--output", tmp_path / "output")
    assert outcome.code in (0, 2), outcome
    if outcome.code == 2:
        assert_told(outcome, PROGRAM)
    else:
        assert_explained(outcome)
        explained(tmp_path / "output")


@pytest.mark.parametrize("ending", ["_holistic_cam.png", "_layercam_features.12.npy"])
@pytest.mark.parametrize("what", ["folder", "loop", "pipe"])
def test_something_where_the_output_should_go(model, tmp_path, ending, what):
    make_good(tmp_path / "good.png")
    path = tmp_path / "output" / f"good{ending}"
    path.parent.mkdir()
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
    outcome = run(tmp_path / "good.png", *model, *QUICK, "--output", path.parent)
    if outcome.code == 0:  # replaced
        assert_explained(outcome)
        explained(path.parent)
    else:
        assert_told(outcome, PROGRAM, (2, 3))
        assert path.name in outcome.err


@pytest.mark.parametrize("ending", ["_holistic_cam.png", "_layercam_features.12.npy"])
def test_a_link_where_the_output_should_go_is_not_followed(model, tmp_path, ending):
    """A figure is a file of its own: what an old link points to is not the output folder's."""
    make_good(tmp_path / "good.png")
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / f"good{ending}").symlink_to(tmp_path / "mine.txt")
    outcome = run(tmp_path / "good.png", *model, *QUICK, "--output", tmp_path / "output")
    assert outcome.code in (0, 2, 3), outcome
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_earlier_figure_survives_a_full_disk(model, tmp_path):
    """A limit on the size of files is as good as a full disk."""
    make_good(tmp_path / "good.png")
    assert_explained(run(tmp_path / "good.png", *model, *QUICK, "--output", tmp_path / "output"))
    figure = tmp_path / "output" / "good_holistic_cam.png"
    before, limits = figure.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        outcome = run(tmp_path / "good.png", *model, *QUICK[:-1], "--output", tmp_path / "output")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert_told(outcome, PROGRAM, (2, 3))
    assert figure.read_bytes() == before


def test_odd_class_names(tmp_path, model):
    make_good(tmp_path / "good.png")
    for number, names in enumerate(
        (["$_$", "$\\frac{", "b_c"], ["\U0001f436", "犬", "<b>"], ["ant", "Ant", "x" * 5000])
    ):
        labels = tmp_path / f"labels {number}.txt"
        labels.write_text("\n".join(names), encoding="utf-8")
        output = tmp_path / f"output {number}"
        for target in ((), ("--target", "0", "2")):
            command = (tmp_path / "good.png", *model, "--labels", labels, *QUICK[:-1], "--output", output)
            assert_explained(run(*command, *target))
            assert (output / "good_holistic_cam.png").is_file()
