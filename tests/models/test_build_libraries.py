"""Models of timm, of transformers, and of the user's own, by name: with their weights, or refused in one line."""

from __future__ import annotations

import os
import sys

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import load_classifier

TIMM = "timm/test_resnet.r160_in1k"
ANIMALS = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}


def load(name, weights=None, **options):
    return load_classifier(name, weights, None, "cpu", **options)


def refusal(*arguments, **options):
    with pytest.raises(UsageError) as error:
        load(*arguments, **options)
    return str(error.value)


def same(model, state):
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(tensor, state[name]) for name, tensor in own.items())


class Harmful:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model("test_resnet", num_classes=5).state_dict()


def small_vit(kind=ViTForImageClassification):
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16,
        id2label=ANIMALS, label2id={name: index for index, name in ANIMALS.items()},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config)


@pytest.fixture
def folder(tmp_path):
    """What somebody has after `save_pretrained`."""
    small_vit().save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.4] * 3).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_timm_with_ones_own_weights(state, tmp_path, ending):
    path = tmp_path / f"mine.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    classifier = load(TIMM, path)
    assert same(classifier.model, state)
    assert classifier.classes == [f"class {index}" for index in range(5)]
    assert classifier.preprocessing.source == "timm"
    assert classifier.preprocessing.size == (160, 160)  # of the tag
    assert len(classifier.default_layers) == 4
    assert not classifier.model.training


def test_timm_knows_imagenets_classes():
    classifier = load("timm/test_resnet", untrained=True)
    assert len(classifier.classes) == 1000
    assert classifier.classes[105].startswith("koala")


def test_timms_own_weights_are_asked_of_timm(monkeypatch):
    asked = []

    def created(name, pretrained=False, **options):
        asked.append((name, pretrained))
        return build(name, **options)

    build = timm.create_model
    monkeypatch.setattr(timm, "create_model", created)
    load(TIMM)
    load(TIMM, untrained=True)
    assert asked == [("test_resnet.r160_in1k", True), ("test_resnet.r160_in1k", False)]


def test_a_failed_download_names_the_way_out(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("holistic_cam_plugin.models.network.is_reachable", lambda _: True)
    assert refusal(TIMM) == (
        f"{TIMM} cannot be loaded (no route to host): give a local state dict with --weights FILE, or use --model "
        "digits, the bundled one"
    )


def test_wrong_names_of_timm(state, tmp_path):
    assert "timm has no model called 'test_resne'; did you mean test_resnet" in refusal("timm/test_resne")
    torch.save(state, tmp_path / "mine.pth")
    assert "timm/test_resnet.none cannot be loaded (Invalid" in refusal("timm/test_resnet.none", tmp_path / "mine.pth")
    message = refusal("timm/test_vit", tmp_path / "mine.pth")
    assert "mine.pth does not fit test_vit" in message
    assert "Missing key(s)" in message
    torch.save(state | {"fc.bias": torch.tensor(1.0)}, tmp_path / "scalar.pth")
    assert "scalar.pth does not fit test_resnet" in refusal("timm/test_resnet", tmp_path / "scalar.pth")


@pytest.mark.parametrize(("library", "name"), [("timm", TIMM), ("transformers", "hf/./vit")])
def test_a_library_that_is_not_there(monkeypatch, folder, library, name):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setitem(sys.modules, library, None)
    assert f"this model needs {library}: pip install {library}" in refusal(name)


def test_a_folder_of_transformers(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder.parent)
    for name in ("hf/./vit", f"hf/{folder}"):
        classifier = load(name)
        assert classifier.classes == list(ANIMALS.values())
        assert classifier.preprocessing.mean == (0.4,) * 3
        assert classifier.preprocessing.size == (64, 64)
        assert same(classifier.explainable.model.model, small_vit().state_dict())
        assert classifier.default_layers[-1].startswith("vit.layers.")
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(classifier.model(images), small_vit().eval()(images).logits)
    assert capfd.readouterr() == ("", "")


def test_half_precision_is_read_as_float32(folder, monkeypatch):
    small_vit().to(torch.bfloat16).save_pretrained(folder)
    assert {tensor.dtype for tensor in load(f"hf/{folder}").model.parameters()} == {torch.float32}


def test_a_pickle_is_read_without_running_its_code(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save(small_vit().state_dict(), folder / "pytorch_model.bin")
    assert same(load(f"hf/{folder}").explainable.model.model, small_vit().state_dict())
    torch.save({"weight": Harmful(tmp_path / "harm")}, folder / "pytorch_model.bin")
    assert "could run code when they are loaded: refused" in refusal(f"hf/{folder}")
    assert not (tmp_path / "harm").exists()


def test_safetensors_are_preferred(folder, tmp_path):
    torch.save({"weight": Harmful(tmp_path / "harm")}, folder / "pytorch_model.bin")
    assert same(load(f"hf/{folder}").explainable.model.model, small_vit().state_dict())
    assert not (tmp_path / "harm").exists()


def test_folders_that_are_no_classifier(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal("hf/./vi") == "--model hf/./vi: vi is not a folder"
    (tmp_path / "empty").mkdir()
    assert "hf/./empty cannot be loaded" in refusal("hf/./empty")
    small_vit(ViTModel).save_pretrained(tmp_path / "trunk")
    assert "hf/./trunk is not a trained classifier: its files lack classifier.bias" in refusal("hf/./trunk")
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "hf/./vit cannot be loaded" in refusal("hf/./vit")
    assert "leave out --weights" in refusal("hf/./vit", tmp_path / "mine.pth")


MODULE = """
import timm, torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

def make():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5)

def described():
    return resnet18(num_classes=3), ResNet18_Weights.DEFAULT.transforms(crop_size=96)

def net(channels):
    convolution = nn.Sequential(nn.Conv2d(channels, 4, 3, stride=2), nn.ReLU())
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def gray():
    return net(1)

def six():
    return net(6)

def dense():
    return nn.Conv2d(3, 4, 3)

class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net(3)

    def forward(self, x):
        if len(x) != 1:
            raise KeyError("one at a time")
        return self.net(x)

def fails():
    raise KeyError("no such thing")

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "zoo_of_mine.py").write_text(MODULE)
    path = list(sys.path)
    yield "mine.zoo_of_mine"
    assert sys.path == path
    for name in ("mine", "mine.zoo_of_mine"):
        sys.modules.pop(name, None)


def test_a_function_of_ones_own(module, state, tmp_path):
    assert load(f"{module}:make").classes == [f"class {index}" for index in range(5)]
    changed = {name: 2 * tensor if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(changed, tmp_path / "mine.safetensors")
    assert same(load(f"{module}:make", tmp_path / "mine.safetensors").model, changed)
    assert load(f"{module}:described").preprocessing.size == (96, 96)


def test_a_model_of_one_channel_sees_gray(module, tmp_path):
    preprocessing = load(f"{module}:gray").preprocessing
    picture = Image.new("RGB", (300, 300), (255, 0, 0))
    assert preprocessing(picture).shape == (1, 1, *preprocessing.size)
    assert preprocessing.to_pixels(picture)[0, 0].tolist() == [76, 76, 76]  # the luma of red


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", "KeyError: 'no such thing'"),
        ("nothing", "AttributeError"),
        ("number", "TypeError: 'int' object is not callable"),
        ("six", "takes images with 6 channels: pictures have one or three"),
        ("One", "one at a time"),
        ("dense", "for one image: a classifier returns (1, classes)"),
    ],
)
def test_functions_that_give_no_classifier(module, function, message):
    assert message in refusal(f"{module}:{function}")


def test_a_module_that_is_not_there(module):
    assert "--model nowhere:make: ModuleNotFoundError" in refusal("nowhere:make")
    assert os.getcwd() not in sys.path


def test_the_forms_of_names_are_told():
    assert "timm/NAME, hf/NAME or hf/./FOLDER, open_clip/NAME, and package.module:function" in refusal(
        "vit_base_patch16_224"
    )
