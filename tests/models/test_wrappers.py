"""Preprocessing and class names of models inside of wrappers."""

from __future__ import annotations

import copy
from functools import partial

import peft
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2

from holistic_cam_plugin import explainable
from holistic_cam_plugin.models.wrappers import measure_images

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
NAMES = ["cat", "dog", "cow", "owl"]
PICTURE = Image.effect_mandelbrot((80, 60), (-2, -1, 1, 1), 50).convert("RGB")


@pytest.fixture(scope="module")
def model():
    overlay = {"mean": MEAN, "std": STD, "input_size": (3, 64, 64), "label_names": NAMES, "num_classes": 4}
    created = timm.create_model("test_resnet", num_classes=4, pretrained_cfg_overlay=overlay)
    nn.init.normal_(created.fc.weight)
    return created.eval()


class Wrapper(nn.Module):
    """Prepares images in its own forward pass."""

    def __init__(self, inner: nn.Module, prepare) -> None:
        super().__init__()
        self.inner, self.prepare = inner, prepare

    def forward(self, images):
        return self.inner(self.prepare(images))


find = partial(explainable, size=(64, 64))
WRAPPERS = {
    "AveragedModel": AveragedModel,
    "ModelEma": ModelEma,
    "ModelEmaV2": ModelEmaV2,
    "ModelEmaV3": ModelEmaV3,
    "Sequential": lambda model: nn.Sequential(nn.Identity(), model),
    "peft": lambda model: peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(target_modules=["fc"])),
    "a wrapper in a wrapper": lambda model: nn.Sequential(AveragedModel(Wrapper(model, lambda x: x))),
    "softmax": lambda model: nn.Sequential(model, nn.Softmax(1)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_that_leaves_the_images_alone_hides_nothing(model, name):
    found, bare = find(WRAPPERS[name](model)), find(model)
    assert found.preprocessing == bare.preprocessing
    assert (found.preprocessing.source, found.preprocessing.mean) == ("timm", MEAN)
    assert found.classes == NAMES


NORMALIZING = {
    "once": lambda model: nn.Sequential(v2.Normalize(MEAN, STD), model),
    "in its forward pass": lambda model: Wrapper(model, partial(v2.functional.normalize, mean=MEAN, std=STD)),
    "from 0 to 255": lambda model: nn.Sequential(v2.Normalize([255 * m for m in MEAN], [255 * s for s in STD]), model),
    "from -1 to 1": lambda model: Wrapper(model, lambda x: v2.functional.normalize(x / 2 + 0.5, MEAN, STD)),
}
EXPECTED = {"once": (0, 1), "in its forward pass": (0, 1), "from 0 to 255": (0, 1 / 255), "from -1 to 1": (0.5, 0.5)}


@pytest.mark.parametrize("name", NORMALIZING)
def test_images_are_not_normalised_twice(model, name):
    """The model inside sees the picture as it does without a wrapper."""
    wrapped, seen = NORMALIZING[name](model), []
    found = find(wrapped)
    mean, std = EXPECTED[name]
    assert found.preprocessing.mean == pytest.approx([mean] * 3, abs=1e-5)
    assert found.preprocessing.std == pytest.approx([std] * 3, rel=1e-4)
    assert found.classes == NAMES
    with torch.no_grad(), model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        wrapped(found.preprocessing(PICTURE))
    torch.testing.assert_close(seen[0], find(model).preprocessing(PICTURE), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "prepare",
    [lambda x: x.flip(1), lambda x: x[..., ::2, ::2], lambda x: x**2, lambda x: 1 - x, lambda x: x.mean(1, True)],
    ids=["channels swapped", "smaller", "squared", "inverted", "gray"],
)
def test_what_else_a_wrapper_does_is_not_guessed(model, prepare):
    wrapped = Wrapper(model, lambda x: prepare(x).expand(-1, 3, -1, -1))
    found = find(wrapped)
    assert found.preprocessing.source == "assumed"
    assert found.classes == NAMES
    with pytest.warns(UserWarning, match="does not tell its preprocessing, and the usual one of ImageNet is assumed"):
        found.preprocessing(PICTURE)


def test_another_head_has_no_names_but_the_same_preprocessing(model):
    found = find(nn.Sequential(model, nn.Linear(4, 3)))
    assert (found.preprocessing.mean, found.classes) == (MEAN, None)


def test_models_that_run_without_the_one_that_is_described_are_not_measured(model):
    wrapped = Wrapper(model, lambda x: x)
    assert measure_images(wrapped, nn.Identity(), (64, 64), 3) is None
    assert measure_images(wrapped, model, (64, 64), 4) is None  # it takes three channels
    assert measure_images(wrapped, model, (64, 64), 3).scale == pytest.approx((1, 1, 1))
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("name", ["AveragedModel", "Sequential", "peft"])
def test_models_of_transformers(tmp_path, name):
    config = {"image_size": 40, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
    labels = {0: "cat", 1: "dog"}
    transformers.ViTForImageClassification(transformers.ViTConfig(**config, id2label=labels)).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 40, "width": 40}, image_mean=MEAN).save_pretrained(tmp_path)
    loaded = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    wrappers = WRAPPERS | {
        "peft": lambda model: peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear")),
    }
    found = explainable(wrappers[name](loaded), size=(40, 40))
    assert (found.preprocessing.source, found.preprocessing.mean) == ("transformers", MEAN)
    assert found.classes == ["cat", "dog"]
