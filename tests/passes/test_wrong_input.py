"""Wrong input, targets, layers and outputs: the error says what to do, and comes before anything is hooked."""

from __future__ import annotations

import gc
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget
from torch import Tensor, nn

from holistic_cam_plugin import CAMERAS, HolisticCAM

SIZES = {"sizes": [64, 80]}


class Returns(nn.Module):
    """A feature layer, and an output in whatever structure."""

    def __init__(self, form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.form = nn.Conv2d(3, 5, 3, padding=1), form

    def forward(self, x: Tensor) -> object:
        return self.form(self.features(x))


@pytest.mark.parametrize("aug_smooth", [False, True])
@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (torch.zeros(1, 1, 3, 4, 64, 64), ValueError, r"must be .* or \(B, C, D, H, W\) of volumes, got shape \(1, 1,"),
        (torch.zeros(3, 64, 64), ValueError, r"must be a batch \(B, C, H, W\) of images or .*, got shape \(3, 64,"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, "floating-point tensor of preprocessed images"),
        (np.zeros((1, 3, 64, 64), np.float32), TypeError, "floating-point tensor .*, got a ndarray"),
    ],
)
def test_wrong_inputs(net, images, error, match, aug_smooth):
    with pytest.raises(error, match=match):
        HolisticCAM(net, [net.layer2])(images, aug_smooth=aug_smooth)


@pytest.mark.parametrize("aug_smooth", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_or_more_targets_than_images(net, images, seen, count, aug_smooth):
    cam, shapes = HolisticCAM(net, [net.layer2]), seen(net)
    with pytest.raises(ValueError, match=f"got {count} targets for 2 images"):
        cam(images, [ClassifierOutputTarget(0)] * count, aug_smooth=aug_smooth)
    assert shapes == []


@pytest.fixture
def raised_in_del(monkeypatch) -> list:
    """What Python can only print, as nobody can catch it."""
    raised: list = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    return raised


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        (lambda net: net.layer2, TypeError, "target_layers must be a list, got a Sequential"),
        (lambda net: [], ValueError, "target_layers is empty"),
        (lambda net: ["layer2"], TypeError, "every target layer must be a module, got 'layer2'"),
        (lambda net: [net.layer1, nn.Conv2d(3, 3, 1)], ValueError, "of type Conv2d is not part of the model"),
    ],
)
@pytest.mark.parametrize("method", [HolisticCAM, CAMERAS])
def test_wrong_target_layers_hook_nothing_and_die_in_silence(net, layers, error, match, method, raised_in_del):
    net.train()
    with pytest.raises(error, match=match):
        method(net, layers(net))
    gc.collect()  # the half-constructed object goes
    assert raised_in_del == []
    assert not any(module._forward_hooks for module in net.modules())
    assert net.training


@pytest.mark.parametrize("error", ["num_scales", "batch_size"])
def test_an_object_refused_for_its_parameters_dies_in_silence(net, error, raised_in_del):
    with pytest.raises(ValueError, match=error):
        HolisticCAM(net, [net.layer2], **{error: 0})
    gc.collect()
    assert raised_in_del == []


def test_no_targets_on_segmentation_outputs(images):
    model = Returns(lambda x: x)
    cam = HolisticCAM(model, [model.features], sizes=[64, 80])
    with pytest.raises(ValueError, match=r"returned \(1, 5, 64, 64\): .* targets=\[SemanticSegmentationTarget"):
        cam(images)
    mask = np.zeros((64, 64), np.float32)
    mask[:32] = 1
    maps = cam(images, [SemanticSegmentationTarget(2, mask)] * 2)
    assert maps.shape == (2, 64, 64)


@pytest.mark.parametrize("aug_smooth", [False, True])
def test_no_targets_on_detections(images, aug_smooth):
    model = Returns(lambda x: [{"boxes": x[0, :, :4, 0], "scores": x[0, 0, 0]}])
    with pytest.raises(ValueError, match=r"dicts with the keys \['boxes', 'scores'\]: .*targets=\[FasterRCNNBoxScore"):
        HolisticCAM(model, [model.features])(images[:1], None, aug_smooth)


@pytest.mark.parametrize("sizes", [[64, 80], [80]])
@pytest.mark.parametrize(
    ("form", "match"),
    [
        (lambda x: (x.mean((2, 3)),), r"returned a tuple, not a tensor; wrap the model(.|\n)*self\.model\(x\)\[0\]"),
        (lambda x: [x.mean((2, 3))], r"returned a list, not a tensor; wrap the model"),
        (lambda x: {"out": x.mean((2, 3))}, r'returned a dict(.|\n)*self\.model\(x\)\["out"\]'),
        (lambda x: SimpleNamespace(logits=x.mean((2, 3))), r"a SimpleNamespace(.|\n)*self\.model\(x\)\.logits"),
    ],
)
def test_outputs_that_are_no_tensor_are_never_guessed(images, form, match, sizes):
    model = Returns(form)
    with pytest.raises(TypeError, match=match):
        HolisticCAM(model, [model.features], sizes=sizes)(images)


def test_a_target_that_does_not_depend_on_the_layer(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    with pytest.raises(ValueError, match="score does not depend on the target layers: nothing to explain"):
        cam(images, [lambda output: torch.tensor(1.0)] * 2)
    with pytest.raises(ValueError, match="must return one value per image"):
        cam(images, [lambda output: output] * 2)
    with pytest.raises(TypeError, match=r"every target must be callable, .* got 281"):
        cam(images, [281, 281])


def test_an_impossible_class_raises_the_users_own_index_error(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    with pytest.raises(IndexError), cam:
        cam(images, [ClassifierOutputTarget(1000)] * 2)


@pytest.mark.parametrize("name", ["tiles", "fsd"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_switches_are_true_or_false(net, name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {value!r}"):
        HolisticCAM(net, [net.layer2], **{name: value})


@pytest.mark.parametrize("model", [None, "resnet50", lambda x: x])
def test_a_model_is_a_module(net, model):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got "):
        HolisticCAM(model, [net.layer2])


@pytest.mark.parametrize(
    "error", [TypeError, IndexError, ValueError, RuntimeError, AssertionError, AttributeError, KeyError]
)
def test_a_model_that_refuses_other_sizes_gets_a_hint_at_tiles(images, error):
    def pooled(x: Tensor) -> Tensor:
        if x.shape[-1] != 64:
            raise error
        return x.mean((2, 3))

    model = Returns(pooled)
    match = rf"the model takes images of 64x64 px but not the pyramid's 80x80 px \({error.__name__}\). Pass tiles=True"
    with pytest.raises(ValueError, match=match):
        HolisticCAM(model, [model.features], **SIZES)(images)


class Multiples(nn.Module):
    """Takes sides that are multiples of 16, as U-Nets with skip connections do."""

    def __init__(self, form, axes: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.features, self.form = conv(3, 5, 3, padding=1), form

    def forward(self, x: Tensor) -> object:
        if any(side % 16 for side in x.shape[-2:]):
            raise RuntimeError("Sizes of tensors must match except in dimension 1")
        return self.form(self.features(x))


TILES, MULTIPLES = "tiles=True for a model of fixed size", "multiple_of=16 for one that takes multiples of 16 px"
OTHERS = "num_scales=1 without sizes, or sizes=[...] that it takes"


@pytest.mark.parametrize(
    ("form", "axes", "remedies"),
    [
        (lambda x: x.mean((2, 3)), 2, f"Pass {TILES}, or {MULTIPLES}, or {OTHERS}"),
        (lambda x: x, 2, f"Pass {MULTIPLES}, or {OTHERS}"),  # dense: no tiles
        (lambda x: x[:, 0], 2, f"Pass {MULTIPLES}, or {OTHERS}"),
        (lambda x: [{"boxes": x[0, 0, :4, :4], "scores": x[0, 0, 0]}], 2, f"Pass {MULTIPLES}, or {OTHERS}"),
        (lambda x: x.mean((2, 3, 4)), 3, f"Pass {MULTIPLES}, or {OTHERS}"),  # volumes: no tiles
    ],
)
def test_the_remedies_for_a_size_are_those_that_can_help(form, axes, remedies):
    model = Multiples(form, axes).eval()
    image = torch.rand(1, 3, *[4] * (axes - 2), 48, 80)

    def score(output):
        return output["scores"].sum() if isinstance(output, dict) else output.sum()

    with pytest.raises(ValueError, match=rf"px \(Sizes of tensors must match.*{re.escape(remedies)}$"):
        HolisticCAM(model, [model.features], sizes=[48, 60])(image, [score])
    cam = HolisticCAM(model, [model.features], sizes=[48, 60], multiple_of=16, weighting="gradient", fsd=False)
    assert cam(image, [score]).shape == (1, *image.shape[2:])
    assert HolisticCAM(model, [model.features], num_scales=1, fsd=False)(image, [score]).shape == (1, *image.shape[2:])


def test_a_model_of_one_size_is_not_sent_to_multiples_that_it_was_given():
    """The sides of both sizes are multiples of 32."""
    model = Returns(lambda x: x.mean((2, 3)).view(-1, 5) if x.shape[-1] == 64 else x.view(0, 5))
    with pytest.raises(
        ValueError, match=r"Pass tiles=True for a model of fixed size, or num_scales=1 without sizes, or"
    ):
        HolisticCAM(model, [model.features], sizes=[64, 96], multiple_of=32)(torch.rand(1, 3, 64, 64))


def test_tiles_of_outputs_for_each_place_are_refused_with_what_can_help(images):
    for form in (lambda x: x, lambda x: x[:, 0]):
        model = Returns(form)
        cam = HolisticCAM(model, [model.features], tiles=True, sizes=[64, 96])
        with pytest.raises(ValueError, match=r"need whole images\. Leave it out, and pass multiple_of, sizes that"):
            cam(images[:1], [lambda output: output.sum()])
