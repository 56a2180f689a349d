from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.passes.outputs import check_outputs, detach_outputs, join_outputs, rescale_outputs


@pytest.mark.parametrize("shape", [(2, 5), (2,), (2, 7, 3), (2, 5, 8, 8)])
def test_one_tensor_with_a_row_an_image_passes(shape):
    outputs = torch.zeros(shape)
    assert check_outputs(outputs, 2) is outputs


class HuggingFaceLike(SimpleNamespace):
    pass


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        ((torch.zeros(2, 5),), r"returned a tuple, not a tensor(.|\n)*self\.model\(x\)\[0\]"),
        ([torch.zeros(2, 5)], r"returned a list(.|\n)*self\.model\(x\)\[0\]"),
        ([], r"returned a list(.|\n)*self\.model\(x\)\[0\]"),
        ({"out": torch.zeros(2, 5)}, r"returned a dict(.|\n)*self\.model\(x\)\[\"out\"\]"),
        ({}, r"returned a dict(.|\n)*self\.model\(x\)\[\"logits\"\]"),
        (HuggingFaceLike(logits=torch.zeros(2, 5)), r"returned a HuggingFaceLike(.|\n)*self\.model\(x\)\.logits"),
    ],
)
def test_other_structures_are_refused_with_the_wrapper_to_write(outputs, match):
    with pytest.raises(TypeError, match=match) as raised:
        check_outputs(outputs, 2)
    assert "class Wrapped(torch.nn.Module)" in str(raised.value)


def test_the_wrapper_in_the_error_works():
    with pytest.raises(TypeError) as raised:
        check_outputs((torch.zeros(2, 5),), 2)
    scope = {"torch": torch}
    exec(str(raised.value).partition("\n    ")[2].replace("\n    ", "\n"), scope)

    class Tupled(torch.nn.Module):
        def forward(self, x):
            return x, None

    assert scope["Wrapped"](Tupled())(torch.ones(2, 5)).shape == (2, 5)


def test_detections_pass_where_they_are_welcome():
    outputs = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}]
    assert check_outputs(tuple(outputs), 1, detections=True) == outputs
    with pytest.raises(ValueError, match=r"list of 1 dicts with the keys \['boxes', 'scores'\]: detection outputs"):
        check_outputs(outputs, 1)
    with pytest.raises(ValueError, match="list of 1 dicts for 2 images"):
        check_outputs(outputs, 2, detections=True)


@pytest.mark.parametrize("shape", [(), (3, 5)])
def test_a_first_dimension_that_is_not_the_batch_is_refused(shape):
    with pytest.raises(ValueError, match="for 2 images, not one row per image"):
        check_outputs(torch.zeros(shape), 2)


def test_dense_outputs_come_back_to_the_native_extent_with_their_gradients():
    ramp = torch.linspace(0, 1, 40).expand(1, 2, 40, 40)
    outputs = ramp.clone().requires_grad_()
    native = rescale_outputs(outputs, (80, 80), (20, 20), (1, 2, 10, 10))
    torch.testing.assert_close(native[0, 0, 5], torch.linspace(0, 1, 40).view(10, 4).mean(dim=1), atol=0.02, rtol=0)
    gradient = torch.autograd.grad(native[:, 1].sum(), outputs)[0]
    assert (gradient[:, 0] == 0).all()
    assert (gradient[:, 1] > 0).all()  # antialiasing: every pixel has its share
    assert float(gradient.sum()) == pytest.approx(100, rel=1e-4)


@pytest.mark.parametrize("shape", [None, (1, 2, 40, 40)])
def test_dense_outputs_of_the_right_or_of_unknown_size_stay(shape):
    outputs = torch.rand(1, 2, 40, 40)
    assert rescale_outputs(outputs, (80, 80), (40, 40), shape) is outputs


def test_dense_outputs_of_volumes_are_resized_trilinearly():
    outputs = torch.rand(1, 2, 6, 8, 8)
    expected = F.interpolate(outputs, size=(3, 4, 4), mode="trilinear", align_corners=False)
    torch.testing.assert_close(rescale_outputs(outputs, (6, 8, 8), (3, 4, 4), (1, 2, 3, 4, 4)), expected)


PLACES = torch.rand(2, 3, 18, 27)  # of images of 144x216 px, every eighth of which is 12x18 px of 96x144


@pytest.mark.parametrize(
    "view",
    [
        lambda maps: maps[:, 0],  # depths
        lambda maps: maps.permute(0, 2, 3, 1),
        lambda maps: maps[:, :, None].expand(-1, -1, 4, -1, -1),
    ],
    ids=["no channels", "channels last", "two axes of channels"],
)
def test_dense_outputs_come_back_wherever_their_channels_are(view):
    expected = F.interpolate(PLACES, size=(12, 18), mode="bilinear", antialias=True)
    rescaled = rescale_outputs(view(PLACES), (144, 216), (96, 144), view(expected).shape)
    torch.testing.assert_close(rescaled, view(expected))


def test_volumes_come_back_without_channels_and_as_projections():
    volumes = torch.rand(2, 1, 6, 12, 18)
    expected = F.interpolate(volumes, size=(4, 8, 12), mode="trilinear", align_corners=False)
    rescaled = rescale_outputs(volumes[:, 0], (12, 48, 72), (8, 32, 48), (2, 4, 8, 12))
    torch.testing.assert_close(rescaled, expected[:, 0])
    planes = PLACES.repeat(1, 5, 1, 1)  # 15 classes, not slices
    expected = F.interpolate(planes, size=(12, 18), mode="bilinear", antialias=True)
    torch.testing.assert_close(rescale_outputs(planes, (30, 144, 216), (20, 96, 144), (2, 15, 12, 18)), expected)


def test_maps_in_other_proportions_than_the_image_come_back_too():
    """Convolutions without padding take the same number of pixels off both sides."""
    outputs = torch.rand(1, 2, 484, 100)
    expected = F.interpolate(outputs, size=(388, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(rescale_outputs(outputs, (668, 284), (572, 188), (1, 2, 388, 4)), expected)


@pytest.mark.parametrize(
    ("shape", "original_shape"),
    [
        ((1, 145, 64), (1, 65, 64)),  # tokens
        ((1, 144, 144), (1, 64, 64)),  # attention
        ((1, 24, 5), (1, 16, 5)),  # a sequence along one side
        ((1, 84, 189), (1, 84, 84)),  # a YOLO
        ((1, 300), (1, 200)),
        ((1, 8, 144, 144), (1, 4, 64, 64)),
        ((1, 12, 12), (1, 2, 8, 8)),
    ],
)
def test_other_outputs_that_grow_with_the_image_are_left_alone(shape, original_shape):
    outputs = torch.rand(shape)
    assert rescale_outputs(outputs, (96, 96), (64, 64), original_shape) is outputs


def test_a_depth_is_explained_as_one_with_a_channel(make_images):
    """The place that the target names is the same at every scale."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
    model = nn.Sequential(features, nn.Conv2d(8, 1, 1), nn.Upsample(scale_factor=2)).eval()
    nn.init.uniform_(model[1].weight, 0.1, 1)
    squeezed = nn.Sequential(model, nn.Flatten(1, 2)).eval()
    images, options = make_images(1), {"sizes": [64, 100, 152], "weighting": "positive", "fsd": False}
    expected = HolisticCAM(model, [features], **options)(images, [lambda output: output[0, 20, 9]])
    maps = HolisticCAM(squeezed, [features], **options)(images, [lambda output: output[20, 9]])
    np.testing.assert_array_equal(maps, expected)
    y, x = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert abs(y - 41) < 12
    assert abs(x - 19) < 12


def test_rows_of_classes_are_the_same_at_every_size():
    outputs = torch.rand(2, 5)
    assert rescale_outputs(outputs, (80, 80), (40, 40), None) is outputs


def test_detections_come_back_to_native_pixels_with_their_gradients():
    boxes = torch.tensor([[20.0, 30.0, 60.0, 90.0]], requires_grad=True)
    found = {
        "boxes": boxes,
        "keypoints": torch.tensor([[[40.0, 60.0, 1.0]]]),
        "masks": torch.ones(1, 1, 120, 80),
        "scores": torch.tensor([0.9]),
    }
    (native,) = rescale_outputs([found], (120, 80), (40, 40), None)
    assert native["boxes"].tolist() == [[10.0, 10.0, 30.0, 30.0]]
    assert native["keypoints"].tolist() == [[[20.0, 20.0, 1.0]]]
    assert native["masks"].shape == (1, 1, 40, 40)
    assert native["scores"] is found["scores"]
    assert torch.autograd.grad(native["boxes"].sum(), boxes)[0].tolist() == [[0.5, pytest.approx(1 / 3)] * 2]
    assert found["boxes"] is boxes


def test_an_image_without_detections_comes_back():
    found = {"boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 1, 80, 80)}
    (native,) = rescale_outputs([found], (80, 80), (40, 40), None)
    assert native["boxes"].shape == (0, 4)


def test_native_detections_are_left_alone():
    found = [{"boxes": torch.ones(1, 4)}]
    assert rescale_outputs(found, (40, 40), (40, 40), None) is found


def test_batches_are_joined_and_detached():
    tensor = torch.ones(1, 2, requires_grad=True)
    assert join_outputs([tensor, tensor]).shape == (2, 2)
    assert not detach_outputs(tensor * 2).requires_grad
    found = {"scores": tensor * 2, "name": "a"}
    first, second = join_outputs([[found], detach_outputs([found])])
    assert first is found
    assert not second["scores"].requires_grad
    assert second["name"] == "a"
