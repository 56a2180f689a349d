"""Images that the model rejects are listed in `errors.csv`; a failure that no image can cause ends the run at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from holistic_cam_plugin.batch.record import read_record
from holistic_cam_plugin.demo.digits_resnet import DigitsResNet
from tests.batch.batch_tools import make_picture, make_pictures, rows, tree

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")
FORWARD = DigitsResNet.forward


def refuse(monkeypatch, condition, error):
    """Make the model raise `error` for images `(B, 3, H, W)` that satisfy the condition."""

    def forward(self, x):
        if condition(x):
            raise error
        return FORWARD(self, x)

    monkeypatch.setattr(DigitsResNet, "forward", forward)


def wide(x):
    return x.shape[-1] > x.shape[-2]


def black(x):
    return (x == -1).flatten(1).all(dim=1).any()


def list_failed(output):
    with read_record(output) as record:
        return [row["file"] for row in record.connection.execute("SELECT file FROM images WHERE state = 'failed'")]


def make_black(path):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no such\nsize"), "digits does not take images of 336 x 224 px: no such"),
        (ValueError("odd"), "digits does not take images of 336 x 224 px: odd"),
        (AssertionError(), "digits does not take images of 336 x 224 px: AssertionError"),
        (TypeError("odd"), "digits does not take images of 336 x 224 px: odd"),
        (IndexError("out of range"), "digits does not take images of 336 x 224 px: out of range"),
        (KeyError("336"), "digits does not take images of 336 x 224 px: '336'"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 12 bytes"), "out of memory"),
        (MemoryError(), "out of memory"),
        (MemoryError("std::bad_alloc"), "out of memory"),
    ],
)
def test_an_image_that_the_model_refuses_is_listed_and_the_run_goes_on(run, tmp_path, monkeypatch, error, reason):
    for number, size in enumerate([(40, 40), (60, 40), (40, 40)]):
        make_picture(tmp_path / "in" / f"{number}.png", number, size)
    refuse(monkeypatch, wide, error)
    for explained in (2, 0):
        code, out, _ = run("--no-crop")
        assert code == 1
        assert f"{explained} images explained" in out
        assert [(row["file"], row["reason"]) for row in rows(tmp_path / "output", "errors.csv")] == [("1.png", reason)]
        assert [row["file"] for row in rows(tmp_path / "output")] == ["0.png", "2.png"]


@pytest.mark.parametrize("methods", [("holisticcam",), ("gradcam", "layercam")])
@pytest.mark.campaign
def test_the_others_of_a_batch_get_the_same_maps_at_every_restart(run, tmp_path, monkeypatch, methods):
    make_pictures(tmp_path / "in", 5)
    run("--batch-size", "1", "--methods", *methods, output=tmp_path / "alone")
    make_black(tmp_path / "in" / "deeper" / "black.png")
    refuse(monkeypatch, black, RuntimeError("black"))
    options = ("--batch-size", "4", "--methods", *methods)
    assert "5 images explained" in run(*options)[1]
    output = tmp_path / "output"
    whole, alone = tree(output), tree(tmp_path / "alone")
    with_black = [name for name in whole if name.startswith("maps/deeper/")]
    assert len(with_black) == 2
    assert all(whole[name] == alone[name] for name in with_black)
    for name in with_black:
        (output / name).unlink()
        code, out, _ = run(*options)
        assert code == 1
        assert "1 images explained" in out
        assert tree(output) == whole
    monkeypatch.undo()
    assert run(*options)[0] == 0


@pytest.mark.parametrize("too_much", [lambda: torch.empty(10**14), lambda: np.empty(10**14)])
def test_memory_that_really_runs_out(run, tmp_path, monkeypatch, too_much):
    make_pictures(tmp_path / "in", 1)
    make_black(tmp_path / "in" / "black.png")
    monkeypatch.setattr(DigitsResNet, "forward", lambda self, x: too_much() if black(x) else FORWARD(self, x))
    assert run()[0] == 1
    assert [row["reason"] for row in rows(tmp_path / "output", "errors.csv")] == ["out of memory"]


def test_a_batch_that_does_not_fit_is_explained_image_by_image(run, tmp_path, monkeypatch):
    make_pictures(tmp_path / "in", 5)
    refuse(monkeypatch, lambda x: len(x) > 2, RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert "5 images explained" in run("--batch-size", "4")[1]
    whole = tree(tmp_path / "output")
    run("--batch-size", "4", output=tmp_path / "again")
    assert tree(tmp_path / "again") == whole


def test_what_no_image_can_change_ends_the_run_at_once(run, tmp_path, monkeypatch):
    make_pictures(tmp_path / "in", 9)
    refuse(monkeypatch, lambda x: x.shape[-1] == 64, ValueError("no 64 px"))
    code, _, err = run("--batch-size", "4", output=tmp_path / "scale")
    assert (code, err.count("holistic-cam batch:")) == (2, 1)
    assert "Class Holistic-CAM cannot explain layer4: " in err
    assert "no 64 px" in err
    assert list_failed(tmp_path / "scale") == []


def test_a_layer_that_gives_no_maps_is_refused_before_there_is_a_folder(run, tmp_path):
    make_pictures(tmp_path / "in", 1)
    code, _, err = run("--layers", "layer4", "fc")
    assert (code, err.count("holistic-cam batch:")) == (2, 1)
    assert "the layer 'fc' returns neither maps (B, C, h, w) nor tokens" in err
    assert not (tmp_path / "output").exists()


def test_a_device_that_breaks_ends_the_run_and_a_restart_goes_on(run, tmp_path, monkeypatch):
    make_pictures(tmp_path / "in", 6)
    for name in ("b 1.png", "b 2.png"):
        make_black(tmp_path / "in" / name)
    seen = []

    def breaks(x):
        seen.extend([1] if black(x) else [])
        return black(x) or len(seen) == 2

    refuse(monkeypatch, breaks, RuntimeError("illegal memory access"))
    code, _, err = run()
    assert code == 3
    assert "stopped: the device no longer works (" in err
    assert "illegal memory access): finished maps are saved; run the same command again to continue\n" in err
    assert list_failed(tmp_path / "output") == ["b 1.png"]
    monkeypatch.undo()
    assert run()[0] == 0


def test_one_long_picture_with_no_crop(run, tmp_path):
    make_pictures(tmp_path / "in", 2)
    Image.new("RGB", (2600, 3)).save(tmp_path / "in" / "long.png")
    assert run("--no-crop")[0] == 1
    [error] = rows(tmp_path / "output", "errors.csv")
    assert error["reason"] == "2600 x 3 px: too long and narrow to be resized to 224 px"
    assert len(rows(tmp_path / "output")) == 2


def test_overlays_that_no_jpeg_holds(run, tmp_path, monkeypatch):
    monkeypatch.setattr("holistic_cam_plugin.display.sheets.LARGEST_SIDE", 600)
    make_picture(tmp_path / "in" / "picture.png", size=(40, 40))
    make_picture(tmp_path / "in" / "strip.png", size=(60, 40))
    assert run("--no-crop", "--overlays")[0] == 1
    [error] = rows(tmp_path / "output", "errors.csv")
    assert error["reason"] == "the overlays are 672 x 224 px, a JPEG has at most 600"
    assert len(rows(tmp_path / "output")) == 1


@pytest.mark.parametrize(("options", "clash"), [((), ".npz"), (("--overlays",), ".jpg")])
def test_a_file_of_maps_called_like_a_folder_of_maps(run, tmp_path, options, clash):
    make_picture(tmp_path / "in" / "a.png")
    make_picture(tmp_path / "in" / "deep" / "b.png", 1)
    make_picture(tmp_path / "in" / f"a.png{clash}" / "deeper" / "c.png", 2)
    for explained in (2, 0):
        code, out, _ = run(*options)
        assert code == 1
        assert f"{explained} images explained" in out
        [error] = rows(tmp_path / "output", "errors.csv")
        assert error["file"] in ("a.png", f"a.png{clash}/deeper/c.png")
        assert error["reason"].startswith("its maps would have the name of a folder of other maps, or be in a folder")
        assert {row["file"] for row in rows(tmp_path / "output")} | {error["file"]} == {
            "a.png", "deep/b.png", f"a.png{clash}/deeper/c.png",
        }  # fmt: skip
    if clash == ".jpg":
        assert run(output=tmp_path / "no overlays")[0] == 0
