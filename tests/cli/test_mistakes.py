"""What an unlucky user meets: one line, before any work is lost, and nothing outside the output folder."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from holistic_cam_plugin.__main__ import main
from tests.cli.notes import drop_notes
from tests.models.files import MODEL
from tests.processes import PATIENCE, start, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")
ODD = [
    "..jpg", "...jpg", "a_b.jpg", "a b.jpg", "a$_$b.jpg", "$x.jpg", "line\nend.jpg", "line_end.jpg", "-x.jpg",
    "😀🦄像.jpg", "n" * 251 + ".jpg", os.fsdecode(b"bytes \xff.jpg"), "a\\frac.jpg", "%s {0}.jpg", "x.png", "x.jpg",
]  # fmt: skip


@pytest.fixture
def explain(weights, tmp_path, capsys):
    """Run one quick method in one layer; gives exit code, standard output and standard error."""

    def _run(*arguments):
        command = ["--model", MODEL, "--weights", weights, "--layers", "features.12", "--method", "gradcam"]
        command += ["--device", "cpu", "--output", tmp_path / "out"]
        try:
            code = main([str(argument) for argument in (*command, *arguments)])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, drop_notes(captured.err)

    return _run


@pytest.fixture
def uncomputed(monkeypatch):
    """No map is computed."""

    def fail(*_, **__):
        raise AssertionError("a map was computed")

    monkeypatch.setattr("holistic_cam_plugin.explain.compute_maps", fail)


def refusal(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("holistic-cam: error: ")
    return err


@pytest.mark.campaign
def test_odd_names_give_files_in_the_folder_and_not_a_word_more(explain, photo, tmp_path):
    images = [f"{tmp_path}/a/{name}" for name in ODD] + [f"{tmp_path}/b/{name}" for name in ODD[:4]]
    for image in images:
        Path(image).parent.mkdir(exist_ok=True)
        Path(image).write_bytes(photo.read_bytes())
    before = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in (path, *path.parents)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        code, out, err = explain("--save-array", "--image-path", *images, images[0])
    assert (code, err) == (0, "")
    assert out.count("predicted") == len(images)
    for ending in ("_holistic_cam.png", "_gradcam_features.12.npy"):
        assert len(list((tmp_path / "out").glob(f"*{ending}"))) == len(images)
    assert {path for path in tmp_path.rglob("*") if tmp_path / "out" not in (path, *path.parents)} == before


def test_class_names_are_shown_as_they_are(explain, photo, tmp_path):
    (tmp_path / "labels.txt").write_text("a$_$b\n像 $x\n\\frac{\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        code, out, err = explain(photo, "--labels", tmp_path / "labels.txt", "--target", "0", "像 $x", "2")
    assert (code, err) == (0, "")
    assert any(name in out for name in ("a$_$b", "像 $x", "\\frac{"))


def test_what_is_given_twice_is_taken_once(explain, photo, tmp_path):
    code, out, _ = explain(
        photo, photo, "--target", "1", "0", "1", "--layers", "features.7", "features.12", "features.7",
        "--methods", "gradcam", "grad-cam", "--save-array",
    )  # fmt: skip
    assert code == 0
    assert out.count("predicted") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "photo_gradcam_features.12_0.npy",
        "photo_gradcam_features.12_1.npy",
        "photo_gradcam_features.7_0.npy",
        "photo_gradcam_features.7_1.npy",
        "photo_holistic_cam.png",
    ]
    code, *_ = explain(photo, "--target", "1", "1", "--save-array", "--output", tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir())[0] == "photo_gradcam_features.12.npy"


@pytest.mark.usefixtures("uncomputed")
def test_what_can_be_refused_is_refused_before_anything_is_computed(explain, photo, tmp_path):
    for target in ("--5", "-1", "³"):
        assert "class" in refusal(explain(photo, f"--target={target}"))
    vector = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), vector)
    error = refusal(explain(photo, "--model", "resnet18", "--weights", vector, "--layers", "layer4", "fc"))
    assert "the layer 'fc' returns neither maps" in error
    assert "'meta' cannot be used" in refusal(explain(photo, "--device", "meta"))
    (tmp_path / "out" / "photo_holistic_cam.png").mkdir(parents=True)
    assert "photo_holistic_cam.png is a folder" in refusal(explain(photo))
    (tmp_path / "out" / "photo_holistic_cam.png").rmdir()
    (tmp_path / "out" / "photo_gradcam_features.12.npy").mkdir()
    assert "features.12.npy is a folder" in refusal(explain(photo, "--save-array"))
    assert "File name too long" in refusal(explain(tmp_path / ("n" * 300 + ".jpg")))
    assert "File name too long" in refusal(explain(photo, "--weights", "n" * 300))
    assert "output folder" in refusal(explain(photo, "--output", tmp_path / ("n" * 300)))
    assert "udcff.jpg does not exist" in refusal(explain(os.fsdecode(b"\xff.jpg")))


@pytest.mark.usefixtures("uncomputed")
def test_a_long_picture_and_a_damaged_one_after_a_good_one(explain, photo, tmp_path):
    Image.fromarray(np.zeros((3, 2600 * 10, 3), np.uint8)).save(tmp_path / "long.png")
    assert "long.png: 26000 x 3 px is too long and narrow" in refusal(explain(photo, tmp_path / "long.png"))
    (tmp_path / "page.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    refused = refusal(explain(photo, tmp_path / "page.jpg"))
    assert "page.jpg cannot be read as an image: its format is none of BMP" in refused


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_a_long_picture_that_does_not_fit_into_memory(weights, tmp_path):
    """2600 x 3 px become 221,866 x 256."""
    photo, said = tmp_path / "long.png", tmp_path / "said.txt"
    Image.fromarray(np.zeros((3, 2600, 3), np.uint8)).save(photo)
    command = ["--model", MODEL, "--weights", str(weights), "--output", str(tmp_path / "out"), str(photo)]
    process = start(main_in_little_memory, command, out=said)
    process.join(PATIENCE)
    assert process.exitcode == 2, said.read_text()
    line = drop_notes(said.read_text())
    assert line.endswith("long.png: 2600 x 3 px: not enough memory to resize it\n")
    assert line.count("\n") == 1


def main_in_little_memory(command):
    """With 128 MiB more than the process has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27,) * 2)
    return main(command)


@pytest.mark.usefixtures("uncomputed")
def test_weights_of_nan_are_refused(explain, photo, weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    state["classifier.1.bias"] += float("nan")
    torch.save(state, tmp_path / "nan.pth")
    error = refusal(explain(photo, "--weights", tmp_path / "nan.pth"))
    assert "nan.pth has NaN or infinite values in classifier.1.bias" in error
    state["classifier.1.bias"] = torch.full((3,), 3e38)
    state["classifier.1.weight"] = torch.full_like(state["classifier.1.weight"], 3e38)
    torch.save(state, tmp_path / "huge.pth")
    assert f"photo.jpg: {MODEL} returns NaN" in refusal(explain(photo, "--weights", tmp_path / "huge.pth"))


def test_arguments_with_line_ends_are_quoted_in_one_line(explain, photo):
    assert "--no such" in refusal(explain(photo, "--no\nsuch"))


def test_a_full_disk_leaves_the_earlier_figure(explain, photo, tmp_path, monkeypatch):
    assert explain(photo)[0] == 0
    figure = tmp_path / "out" / "photo_holistic_cam.png"
    before = figure.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("holistic_cam_plugin.files.os.fsync", full)
    code, out, err = explain(photo)
    assert (code, out) == (3, "")
    assert err == f"holistic-cam: stopped: {figure} cannot be written: No space left on device\n"
    assert list((tmp_path / "out").iterdir()) == [figure]
    assert figure.read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device on this system")
def test_a_full_terminal_is_one_line(photo, weights, tmp_path):
    command = [str(photo), "--model", MODEL, "--weights", str(weights), "--layers", "features.12"]
    command += ["--method", "gradcam", "--output", str(tmp_path / "out")]
    process = start(main, command, out="/dev/full", err=tmp_path / "err.txt")
    process.join(PATIENCE)
    assert process.exitcode == 3
    said = drop_notes((tmp_path / "err.txt").read_text())
    assert said == "holistic-cam: stopped: standard output cannot be written: No space left on device\n"
    assert (tmp_path / "out" / "photo_holistic_cam.png").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_line(photo, weights, tmp_path, number):
    command = [str(photo), "--model", MODEL, "--weights", str(weights), "--layers", "features.3"]
    command += ["--method", "holisticcam", "--output", str(tmp_path / "out")]
    # The passes are so many that the signal comes in time on any machine.
    command += ["--sizes", *map(str, range(224, 1000))]
    process = start(main, command, out=tmp_path / "said.txt")
    wait_for((tmp_path / "out").is_dir, process)  # made just before the first pass
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == 128 + number
    assert drop_notes((tmp_path / "said.txt").read_text()) == f"holistic-cam: stopped by {number.name}\n"
    assert not list((tmp_path / "out").iterdir())


def test_an_unknown_pyramid(explain):
    code, _, err = explain("photo.jpg", "--sizes", "quick")
    assert code == 2
    assert "argument --sizes: must be whole numbers, or fast or paper, got 'quick'" in err
