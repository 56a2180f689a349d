"""Formats, metadata and several models in a figure."""

from __future__ import annotations

import json
import re
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.cli import notes
from holistic_cam_plugin.explain import Request
from holistic_cam_plugin.methods import Method
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.weights import hash_weights
from holistic_cam_plugin.names import FAST
from tests.cli.notes import drop_notes
from tests.models.files import MODEL, make_labels

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")


@pytest.fixture
def run(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def _run(*options):
        code = main([str(photo), "--device", "cpu", "--method", "gradcam", *map(str, options)])
        out, err = capsys.readouterr()
        return code, out, err

    return _run


def read_png(path):
    with Image.open(path) as figure:
        return json.loads(figure.text["Description"]), figure.text


def test_the_metadata_tell_how_the_figure_was_made(run, weights, tmp_path):
    assert run("--model", MODEL, "--weights", weights, "--target", "1")[0] == 0
    found, texts = read_png(tmp_path / "output" / "photo_holistic_cam.png")
    assert texts["Title"] == found["image"] == "photo.jpg"
    assert texts["Software"].startswith("holistic-cam ")
    [model] = found["models"]
    classifier = load_classifier(MODEL, weights, device="cpu")
    assert model["model"] == MODEL
    assert model["weights"] == hash_weights(classifier.model)
    assert model["layers"] == classifier.default_layers
    assert (model["methods"], model["targets"]) == (["gradcam"], ["class 1"])
    assert model["versions"]["torch"]
    assert "sizes" not in model
    assert run("--model", MODEL, "--weights", weights, "--method", "holisticcam", "--sizes", "64", "80")[0] == 0
    assert read_png(tmp_path / "output" / "photo_holistic_cam.png")[0]["models"][0]["sizes"] == [64, 80]


@pytest.mark.parametrize(("kind", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_vector_formats_carry_the_same(run, tmp_path, kind, start):
    assert run("--model", "digits", "--format", kind)[0] == 0
    data = (tmp_path / "output" / f"photo_holistic_cam.{kind}").read_bytes()
    assert data.startswith(start)
    for words in (b"photo.jpg", b"layer1", b"digits"):
        assert words in data
    if kind == "pdf":
        assert re.search(rb"/Creator \(holistic-cam ", data)


def test_resolution(run, tmp_path):
    widths = []
    for dpi in (50, 100):
        assert run("--model", "digits", "--layers", "layer4", "--dpi", dpi)[0] == 0
        with Image.open(tmp_path / "output" / "photo_holistic_cam.png") as figure:
            widths.append(figure.width)
    assert widths[1] == pytest.approx(2 * widths[0], abs=1)
    code, _, err = run("--model", "digits", "--dpi", "5")
    assert (code, "--dpi: must be from 20 to 2400, got 5" in err) == (2, True)


def test_a_resolution_of_too_many_pixels_is_lowered(run, tmp_path, monkeypatch):
    monkeypatch.setattr("holistic_cam_plugin.display.figure.MAX_SIDE", 500)
    code, _, err = run("--model", "digits", "--layers", "layer4", "--dpi", "300")
    assert code == 0
    assert re.search(r"photo.jpg: 300 dpi would be too many pixels: the figure has \d+\n", err)
    with Image.open(tmp_path / "output" / "photo_holistic_cam.png") as figure:
        assert max(figure.size) <= 500


def test_two_models_share_a_figure(run, weights, tmp_path):
    labels = make_labels(tmp_path)
    files = ("--weights", weights, weights, "--labels", labels, labels)
    code, out, _ = run("--model", MODEL, MODEL, *files, "--layers", "features.12", "--save-array")
    assert code == 0
    assert out.count("predicted") == 2
    both = read_png(tmp_path / "output" / "photo_holistic_cam.png")[0]["models"]
    assert [one["model"] for one in both] == [MODEL, MODEL]
    arrays = sorted((tmp_path / "output").glob("*.npy"))
    assert [path.name for path in arrays] == [
        f"photo_{MODEL}-three_classes.pth-{i}_gradcam_features.12.npy" for i in (1, 2)
    ]
    assert (np.load(arrays[0]) == np.load(arrays[1])).all()


def test_every_model_takes_the_layers_that_it_has(run, tmp_path, monkeypatch):
    monkeypatch.setattr("holistic_cam_plugin.cli.figures.load_classifier", load_untrained)
    names = ("resnet18", MODEL)
    assert run("--model", *names, "--layers", "layer4", "features.12")[0] == 0
    found = read_png(tmp_path / "output" / "photo_holistic_cam.png")[0]["models"]
    assert [one["layers"] for one in found] == [["layer4"], ["features.12"]]
    for layers, words in (
        (["layer4"], f"{MODEL} has none of the layers layer4"),
        (["layer4", "features.12", "layr3"], "no layer 'layr3'; did you mean layer3"),
    ):
        code, _, err = run("--model", *names, "--layers", *layers)
        assert code == 2
        assert words in drop_notes(err)


def load_untrained(name, weights, labels, device, *, text):
    return load_classifier(name, weights, labels, device, text=text, untrained=True)


def test_notes_are_told_where_they_apply(run, capsys):
    code, _, err = run("--model", "digits", "--methods", "holisticcam", "--layers", "layer4")
    assert code == 0
    assert err.splitlines() == [
        "holistic-cam: 3 scales (224, 353, 609 px); --sizes paper has 7 and takes about 7 times as long",
        "holistic-cam: photo.jpg (1 of 1) ...",
    ]
    for options in (["--methods", "holisticcam", "--sizes", "fast"], []):
        assert "scales" not in run("--model", "digits", "--layers", "layer4", *options)[2]


def test_a_terminal_shows_bars_in_place_of_lines(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    notes.tell_image("photo.jpg", 1, 2)
    assert capsys.readouterr().err == ""


def test_the_note_counts_windows(capsys):
    needed = {"tiles": True}
    found = Namespace(options=needed, size=(224, 224))
    notes.tell_pyramid(Request(None, found, [Method("holisticcam", {"sizes": FAST})]))
    assert "2 scales (224, 609 px)" in capsys.readouterr().err
