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
from holistic_cam_plugin.models.preprocessing import Preprocessing
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


# Of pictures: width and height; of preprocessings: the crop, and what is resized before it.
SIZES = [(451, 300), (300, 451), (512, 512), (97, 640), (33, 20)]
CROPS = {
    "crop": ((224, 224), 256),
    "wide crop": ((60, 101), 110),
    "squash": ((64, 96), (64, 96)),
    "squash and crop": ((60, 60), (71, 90)),
    "no resize": ((51, 50), None),
    "padding": ((120, 121), 100),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", CROPS)
def test_the_crop_is_where_torchvision_takes_it_from(kind, size):
    crop, resize = CROPS[kind]
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, crop, resize, "bilinear", "timm")
    width, height = size
    # Each pixel holds the position of its own centre, which linear interpolation nearly preserves.
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    moved = preprocessing.resize_and_crop(torch.stack([columns, rows, torch.ones(height, width)]).double())
    left, top, right, bottom = preprocessing.find_crop(width, height)
    expected_columns = left + (torch.arange(crop[1]) + 0.5) * (right - left) / crop[1]
    expected_rows = top + (torch.arange(crop[0]) + 0.5) * (bottom - top) / crop[0]
    # At the picture's edges the window of the interpolation is cut off.
    pixel = max(1, (right - left) / crop[1], (bottom - top) / crop[0])
    margin = 2 * pixel
    inside = (expected_columns > margin) & (expected_columns < width - margin)
    inside = inside & ((expected_rows > margin) & (expected_rows < height - margin))[:, None]
    assert inside.any()
    assert (moved[2][inside] > 0.999).all()  # padding is zero
    for found, expected in ((moved[0], expected_columns.expand(crop)), (moved[1], expected_rows[:, None].expand(crop))):
        torch.testing.assert_close(found[inside], expected[inside].double(), atol=0.1 * pixel, rtol=0)
