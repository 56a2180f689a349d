"""The command line as a user types it: figures, arrays, and one-line errors with exit code 2."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.__main__ import main
from tests.cli.notes import drop_notes
from tests.models.files import CLASSES, MODEL, make_labels

# Small pictures of noise: an untrained network may well see nothing in one of its layers.
pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")


@pytest.fixture
def labels(tmp_path):
    return make_labels(tmp_path)


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command line; gives exit code, standard output and standard error."""

    def _run(*arguments, output=True):
        command = [str(a) for a in arguments] + (["--output", str(tmp_path / "out")] if output else [])
        try:
            code = main(command)
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, drop_notes(captured.err)

    return _run


def refusal(result):
    """The one line of a refused command."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("holistic-cam: error: ")
    return err


def test_the_digits_run_offline_by_all_methods(run, tmp_path):
    code, out, err = run("--model", "digits")
    assert (code, err) == (0, "")
    figure = tmp_path / "out" / "demo_holistic_cam.png"
    assert str(figure) in out
    with Image.open(figure) as image:
        assert image.width > image.height > 150
    assert re.search(r"predicted: digit \d \(\d+\.\d%\)", out)
    for method in ("Grad-CAM", "Grad-CAM++", "Layer-CAM", "CAMERAS", "Holistic-CAM"):
        assert re.search(rf"{re.escape(method)} \d+\.\d\d", out)


def test_a_photo_with_local_weights(run, photo, weights, labels, tmp_path):
    code, out, err = run(
        photo, "--model", MODEL, "--weights", weights, "--labels", labels, "--layers", "features.7", "features.12",
        "--target", "hen", "0", "--methods", "gradcam++", "Layer-CAM", "eigencam", "--save-array", "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert any(name in out for name in CLASSES)
    assert "Grad-CAM++" in out
    with Image.open(tmp_path / "out" / "photo_holistic_cam.png") as image:
        # Two layers for two classes are four rows, with the image before three methods.
        assert 0.8 < image.width / image.height < 1.3
    arrays = sorted(path.name for path in (tmp_path / "out").glob("*.npy"))
    assert len(arrays) == 3 * 2 * 2
    assert "photo_gradcamplusplus_features.12_2.npy" in arrays
    assert "photo_layercam_features.7_0.npy" in arrays
    for path in (tmp_path / "out").glob("*.npy"):
        saliency_map = np.load(path)
        assert saliency_map.dtype == np.float32
        assert saliency_map.shape == (224, 224)
        assert 0 <= saliency_map.min() <= saliency_map.max() <= 1


def test_the_scale_of_the_colours_leaves_the_arrays_alone(run, photo, weights, tmp_path):
    command = (photo, "--model", MODEL, "--weights", weights, "--layers", "features.7", "--method", "layercam")
    figures, maps = [], []
    for options in ((), ("--scale", "sqrt"), ("--colormap", "viridis")):
        assert run(*command, "--save-array", *options)[0] == 0
        figures.append((tmp_path / "out" / "photo_holistic_cam.png").read_bytes())
        maps.append((tmp_path / "out" / "photo_layercam_features.7.npy").read_bytes())
    assert len(set(figures)) == 3
    assert len(set(maps)) == 1
    assert "linear" in refusal(run(*command, "--scale", "log"))


def test_saved_maps_are_those_of_the_class(run, photo, weights, tmp_path):
    # One pyramid serves all the layers of the command line; each layer alone gives the same map.
    code, *_ = run(
        photo, "--model", MODEL, "--weights", weights, "--layers", "features.7", "features.12",
        "--target", "1", "--method", "holistic-cam", "--sizes", "224", "300", "--save-array", "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    model = torchvision.models.get_model(MODEL, weights=None, num_classes=3).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with Image.open(photo) as image:
        x = torchvision.models.get_model_weights(MODEL).IMAGENET1K_V1.transforms()(image.convert("RGB"))[None]
    for layer in ("features.7", "features.12"):
        target = [lambda output: output[1]]
        expected = HolisticCAM(model, [model.get_submodule(layer)], sizes=[224, 300])(x, target)[0]
        saved = np.load(tmp_path / "out" / f"photo_holisticcam_{layer}.npy")
        assert np.abs(saved - expected).max() < 1 / 255


def test_several_images_of_one_name_give_several_figures(run, photo, weights, tmp_path):
    other = tmp_path / "other" / photo.name
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    code, out, _ = run("--image-path", photo, other, "--model", MODEL, "--weights", weights, "--method", "gradcam")
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["photo_2_holistic_cam.png", "photo_holistic_cam.png"]
    assert "of 3" in out


@pytest.mark.parametrize("flag", ["--aug-smooth", "--eigen-smooth"])
def test_smoothing_changes_the_maps(run, photo, weights, tmp_path, flag):
    command = (photo, "--model", MODEL, "--weights", weights, "--layers", "features.12", "--save-array")
    methods = ("--methods", "gradcam", "holisticcam", "--sizes", "64", "96")
    maps = []
    for extra in ((), (flag,)):
        assert run(*command, *methods, *extra)[0] == 0
        maps.append([np.load(path) for path in sorted((tmp_path / "out").glob("*.npy"))])
    for plain, smooth in zip(*maps, strict=True):
        assert not np.allclose(plain, smooth)


def test_meta_methods_of_the_library(run, photo, weights):
    command = (photo, "--model", MODEL, "--weights", weights, "--layers", "features.12", "--methods")
    code, out, _ = run(*command, "finercam", "refinecam")
    assert code == 0
    assert "FinerCAM" in out
    assert "no test-time augmentation" in refusal(run(*command, "finercam", "--aug-smooth"))


def test_layers_are_listed_with_their_shapes(run, weights):
    code, out, _ = run("--list-layers", "--model", "resnet18")
    assert code == 0
    lines = out.splitlines()
    assert "224x224" in lines[0]
    marked = [line.split()[1:3] for line in lines if line.startswith("*")]
    assert marked == [["layer1", "64x56x56"], ["layer2", "128x28x28"], ["layer3", "256x14x14"], ["layer4", "512x7x7"]]
    assert any(line.split()[:2] == ["layer3.0.conv1", "256x14x14"] for line in lines)
    code, out, _ = run("--list-layers", "--model", MODEL, "--weights", weights)
    assert code == 0
    assert "features.12" in out


def test_weights_from_a_download(run, photo, monkeypatch):
    build = torchvision.models.get_model

    def downloaded(name, weights=None, **options):
        return build(name, weights=None, **options)

    monkeypatch.setattr(torchvision.models, "get_model", downloaded)
    monkeypatch.setattr("holistic_cam_plugin.models.network.is_reachable", lambda _: True)
    code, out, _ = run(photo, "--model", MODEL, "--method", "gradcam", "--layers", "features.12", "--target", "Toucan")
    assert code == 0
    assert "of 1000" in out


def test_mistakes_are_one_line(run, photo, weights, labels, tmp_path):
    model = ("--model", MODEL, "--weights", weights, "--labels", labels)
    (tmp_path / "broken.jpg").write_bytes(photo.read_bytes()[:100])
    (tmp_path / "text.pth").write_text("no weights")
    assert "photo.jpg" in refusal(run(tmp_path / "phoot.jpg", *model))
    assert "folder" in refusal(run(tmp_path, *model))
    assert "cannot be read as an image" in refusal(run(tmp_path / "broken.jpg", *model))
    assert "refused" in refusal(run(photo, "--model", MODEL, "--weights", tmp_path / "text.pth"))
    assert "does not fit squeezenet1_0" in refusal(run(photo, "--model", "squeezenet1_0", "--weights", weights))
    assert "none.txt does not exist" in refusal(run(photo, *model, "--labels", tmp_path / "none.txt"))
    assert "did you mean labels.txt?" in refusal(run(photo, *model, "--labels", tmp_path / "nolabels.txt"))
    assert "resnet50" in refusal(run(photo, "--model", "resnet5"))
    assert "features.12" in refusal(run(photo, *model, "--layers", "feature.12"))
    assert "did you mean hen?" in refusal(run(photo, *model, "--target", "heen"))
    assert "gradcam" in refusal(run(photo, *model, "--methods", "gradcm"))
    assert "known methods: ablationcam" in refusal(run(photo, *model, "--methods", "zzz"))
    assert "quantum" in refusal(run(photo, *model, "--device", "quantum"))
    blocked = run(photo, *model, "--method", "gradcam", "--output", str(photo / "below"), output=False)
    assert "output folder" in refusal(blocked)


def test_options_that_need_an_image(run):
    assert "needs an image" in refusal(run("--model", "resnet18"))
    assert "needs an image" in refusal(run("--target", "3"))


def test_what_a_method_refuses_is_one_line(run, photo, weights, monkeypatch):
    def refusing(*_, **__):
        raise ValueError("the image passes at 224x224 px but not at 366x366 px")

    monkeypatch.setattr("holistic_cam_plugin.explain.compute_maps", refusing)
    error = refusal(
        run(photo, "--model", MODEL, "--weights", weights, "--layers", "features.12", "--method", "holisticcam")
    )
    assert "Holistic-CAM cannot explain features.12: " in error
    assert "px but not at" in error


def test_another_pyramid(run, photo, weights, tmp_path):
    arrays = []
    for options in (("--sizes", "fast"), ("--sizes", "64", "96", "--amp")):
        command = (photo, "--model", MODEL, "--weights", weights, "--layers", "features.12", "--save-array")
        assert run(*command, "--methods", "holisticcam", *options)[0] == 0
        arrays.append(np.load(tmp_path / "out" / "photo_holisticcam_features.12.npy"))
    model = torchvision.models.get_model(MODEL, weights=None, num_classes=3).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with Image.open(photo) as image:
        images = torchvision.models.get_model_weights(MODEL).DEFAULT.transforms()(image.convert("RGB"))[None]
    for array, own in zip(arrays, ({"sizes": "fast"}, {"sizes": [64, 96], "amp": True}), strict=True):
        np.testing.assert_allclose(array, HolisticCAM(model, [model.features[12]], **own)(images)[0], atol=1e-3)
