from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision.models import ResNet50_Weights

from holistic_cam_plugin import explainable
from holistic_cam_plugin.models.processors import find_preprocessing


def picture(width: int = 90, height: int = 70) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y * 255 // height, x * 255 // width, (x + y) % 255], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def close(own: torch.Tensor, expected: torch.Tensor) -> None:
    assert own.shape == expected.shape
    assert own.dtype == torch.float32
    torch.testing.assert_close(own, expected, atol=0.05, rtol=0)  # resizing rounds to eight bits


def test_torchvisions_transforms():
    preset = ResNet50_Weights.DEFAULT.transforms(crop_size=48, resize_size=56)
    found = find_preprocessing(nn.Identity(), preset, (32, 32), 3)
    assert found.source == "torchvision"
    close(found(picture()), preset(picture())[None])


@pytest.mark.parametrize(
    "changes", [{}, {"crop_mode": "squash"}, {"crop_pct": 0.7, "mean": (0.5,) * 3, "interpolation": "bilinear"}]
)
def test_timms_data_config(changes):
    model = timm.create_model("test_resnet", pretrained_cfg_overlay=changes | {"input_size": (3, 64, 64)}).eval()
    nn.init.normal_(model.fc.weight)
    found = explainable(model).preprocessing
    assert (found.source, found.size) == ("timm", (64, 64))
    expected = create_transform(**resolve_model_data_config(model))
    close(found(picture()), expected(picture())[None])


PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 40, "width": 40}),
    "bit": lambda: transformers.BitImageProcessor(
        size={"shortest_edge": 50}, crop_size={"height": 40, "width": 40}, resample=Image.Resampling.BICUBIC
    ),
    "convnext, small": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 40}),
    "convnext, large": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "not normalised": lambda: transformers.ViTImageProcessor(size={"height": 40, "width": 40}, do_normalize=False),
    "not rescaled": lambda: transformers.ViTImageProcessor(
        size={"height": 40, "width": 40}, do_rescale=False, image_mean=[120.0] * 3, image_std=[60.0] * 3
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_image_processors_of_transformers(name):
    processor = PROCESSORS[name]()
    found = find_preprocessing(nn.Identity(), processor, (32, 32), 3)
    assert found.source == "transformers"
    close(found(picture()), processor(picture(), return_tensors="pt")["pixel_values"])


def test_the_processor_in_the_models_folder_is_found(tmp_path):
    config = {"image_size": 40, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
    transformers.ViTForImageClassification(transformers.ViTConfig(**config)).save_pretrained(tmp_path)
    load = partial(transformers.ViTForImageClassification.from_pretrained, tmp_path)
    assert explainable(load()).preprocessing.source == "assumed"
    processor = transformers.ViTImageProcessor(size={"height": 40, "width": 40}, image_mean=[0.1, 0.2, 0.3])
    processor.save_pretrained(tmp_path)
    found = explainable(load()).preprocessing
    assert (found.source, found.mean, found.size) == ("transformers", (0.1, 0.2, 0.3), (40, 40))


def test_a_name_that_is_nowhere_on_this_machine_has_none():
    model = nn.Identity()
    model.config = transformers.ViTConfig(name_or_path="nobody/has-this-model")
    assert find_preprocessing(model, None, (32, 32), 3).source == "assumed"


@pytest.mark.parametrize(("channels", "mean"), [(3, (0.485, 0.456, 0.406)), (1, (0.5,)), (4, (0.5,) * 4)])
def test_what_nobody_tells_is_assumed(channels, mean):
    found = find_preprocessing(nn.Identity(), None, (56, 56), channels)
    assert (found.source, found.mean, found.resize, found.size) == ("assumed", mean, 64, (56, 56))
    if channels < 4:
        assert found(picture()).shape == (1, channels, 56, 56)


def test_other_processors_are_refused():
    with pytest.raises(TypeError, match=r"processor must be an image processor of transformers .* got a function"):
        find_preprocessing(nn.Identity(), picture, (32, 32), 3)
