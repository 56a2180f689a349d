"""Models of timm, transformers and the user's own on the command line: the maps are those of the Python interface."""

from __future__ import annotations

import csv
from itertools import product

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, ViTImageProcessor

from benchmarks import table1
from holistic_cam_plugin import ClassHolisticCAM, explainable
from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.record import read_record
from tests.models.test_build_libraries import ANIMALS, small_vit

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with models of two libraries, as a user has it, and the current one."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit", num_classes=5).state_dict(), tmp_path / "mine.safetensors")
    small_vit().save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "vit")
    return tmp_path


def of_timm(here):
    model = timm.create_model("test_vit", num_classes=5)
    model.load_state_dict(load_file(here / "mine.safetensors"))
    return explainable(model)


def of_transformers(here):
    return explainable(AutoModelForImageClassification.from_pretrained(here / "vit"))


MODELS = [
    (("--model", "timm/test_vit", "--weights", "mine.safetensors"), of_timm),
    (("--model", "hf/./vit"), of_transformers),
]


@pytest.mark.parametrize(("options", "found"), MODELS)
def test_an_image(here, photo, capsys, options, found):
    methods = ("--methods", "gradcam", "classholisticcam", "--sizes", "192")
    assert main([str(photo), *options, *methods, "--save-array"]) == 0
    expected = found(here)
    images = expected.preprocessing(Image.open(photo).convert("RGB"))
    assert len(expected.layer_names) > 1
    reshape = {"reshape_transform": expected.reshape_transform}
    for layer, name in zip(expected.target_layers, expected.layer_names, strict=True):
        ours = ClassHolisticCAM(expected.model, [layer], sizes=[192], **expected.options)(images)[0]
        theirs = GradCAM(expected.model, [layer], **reshape)(images, None)[0]
        stem = "output/photo_{}_" + name + ".npy"
        np.testing.assert_allclose(np.load(stem.format("classholisticcam")), ours, atol=1e-4)
        np.testing.assert_allclose(np.load(stem.format("gradcam")), theirs, atol=1e-4)
    assert (here / "output" / "photo_holistic_cam.png").exists()
    assert capsys.readouterr().out.count("predicted") == 1


@pytest.mark.parametrize(
    "returned", ["model", "model, Preprocessing(*[(0.5,) * 3] * 2, (64, 64), 64, 'bilinear', 'own')"]
)
@pytest.mark.parametrize("command", ["explain", "batch"])
def test_an_assumed_preprocessing_is_told_once(here, photo, capsys, command, returned):
    (here / f"mine_{command}_{len(returned)}.py").write_text(
        "from torch import nn\n"
        "from holistic_cam_plugin.demo import load_demo_model\n"
        "from holistic_cam_plugin.models.preprocessing import Preprocessing\n"
        f"def make():\n    model = load_demo_model()\n    return {returned}\n"
    )
    name = f"mine_{command}_{len(returned)}:make"
    options = ("--model", name, "--layers", "layer4", "--methods", "gradcam", "--output", f"out_{len(returned)}")
    if command == "batch":
        (here / "photos").mkdir()
        Image.open(photo).save(here / "photos" / "a.png")
        Image.open(photo).save(here / "photos" / "b.png")
        assert main(["batch", "photos", *options]) == 0
    else:
        assert main([str(photo), *options]) == 0
    told = f"holistic-cam: {name}: the model does not tell its preprocessing, and the usual one of ImageNet is assumed"
    assert capsys.readouterr().err.count(told) == (returned == "model")


def test_class_names_come_with_the_model(here, photo, capsys):
    assert main([str(photo), "--model", "hf/./vit", "--target", "bee", "--methods", "gradcam"]) == 0
    out = capsys.readouterr().out
    assert any(f"predicted: {name} (" in out for name in ANIMALS.values())


@pytest.mark.parametrize(("options", "found"), MODELS)
def test_a_folder_of_images(here, photo, options, found):
    (here / "in").mkdir()
    photo.rename(here / "in" / "photo.png")
    methods = ("--methods", "classholisticcam", "--sizes", "192", "--dtype", "float32", "--workers", "0")
    assert main(["batch", "in", "--output", "maps", *options, *methods, "--overlays"]) == 0
    expected = found(here)
    images = expected.preprocessing(Image.open(here / "in" / "photo.png").convert("RGB"))
    cam = ClassHolisticCAM(expected.model, expected.target_layers[-1:], sizes=[192], **expected.options)
    with np.load("maps/maps/photo.png.npz") as archive:
        np.testing.assert_allclose(archive["maps"][0, 0, 0], cam(images)[0], atol=1e-4)
    library = options[1].partition("/")[0].replace("hf", "transformers")
    with read_record(here / "maps") as record:
        parameters = record.parameters
    assert library in parameters["versions"]
    assert main(["batch", "in", "--output", "maps", *options, *methods, "--overlays"]) == 0
    assert main(["report", "maps"]) == 0


def test_the_layers_of_a_transformer(here, capsys):
    assert main(["--model", "hf/./vit", "--list-layers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hf/./vit at 64x64 px, takes any size; * marks the default layers"
    stages = [line.split()[1] for line in lines if line.startswith("*")]
    assert stages == of_transformers(here).layer_names
    (last,) = [line for line in lines if f" {stages[-1]} " in line]
    assert last.split()[2:] == ["17x32", "LayerNorm,", "4x4", "tokens", "after", "1"]


def test_a_layer_without_maps_is_named(here, photo, capsys):
    assert main([str(photo), "--model", "hf/./vit", "--layers", "classifier"]) == 2
    assert "the layer 'classifier' returns neither maps" in capsys.readouterr().err
    assert main([str(photo), "--model", "hf/./vit", "--layers", "vit.layernor"]) == 2
    assert "no layer 'vit.layernor'; did you mean vit.layernorm" in capsys.readouterr().err


def test_an_experiment(here, photo, capsys):
    (here / "labels.csv").write_text(f"file,class_index,x0,y0,x1,y1\n{photo.name},1,10,10,100,100\n")
    table1.main(
        ["--model", "hf/./vit", "--images", ".", "--labels", "labels.csv", "--methods", "Holistic-CAM positive",
         "Grad-CAM", "--metrics", "ins", "del", "epg", "--device", "cpu"]
    )  # fmt: skip
    found = {(row["layer"], row["method"]) for row in csv.DictReader((here / "output" / "table1.csv").open())}
    assert found == set(product(of_transformers(here).layer_names, ["Holistic-CAM positive", "Grad-CAM"]))
