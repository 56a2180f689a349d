"""`amp=True`: the model in bfloat16, all else in float32, and PyTorch's own switches as before."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_grad_cam import FinerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import CAMERAS, HolisticCAM

SIZES = {"sizes": [64, 96, 150]}


def switches():
    """PyTorch's state of autocast, of this thread."""
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()


@pytest.fixture
def types(any_net):
    """The types that the net's convolutions give, call by call."""
    found = []
    for module in any_net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    return found


@pytest.mark.parametrize("cam_class", [HolisticCAM, partial(HolisticCAM, weighting="positive"), CAMERAS])
@pytest.mark.parametrize("options", [{}, {"tiles": True}, {"batch_size": 2}])
def test_maps_are_those_under_the_users_own_autocast(any_net, images, cam_class, options):
    layers = [any_net.layer2]
    plain = cam_class(any_net, layers, **SIZES, **options)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(images)
    maps = cam_class(any_net, layers, amp=True, **SIZES, **options)(images)
    assert np.array_equal(maps, expected)
    assert not np.array_equal(maps, plain(images))


@pytest.mark.parametrize("smoothing", ["aug_smooth", "eigen_smooth"])
def test_smoothing_gets_it_too(any_net, images, smoothing, types):
    with torch.autocast("cpu", torch.bfloat16):
        expected = HolisticCAM(any_net, [any_net.layer2], **SIZES)(images, **{smoothing: True})
    types.clear()
    maps = HolisticCAM(any_net, [any_net.layer2], amp=True, **SIZES)(images, **{smoothing: True})
    assert np.array_equal(maps, expected)
    assert set(types) == {torch.bfloat16}


@pytest.mark.parametrize("own", [None, torch.bfloat16, torch.float16])
def test_the_model_alone_runs_in_bfloat16(any_net, images, types, own):
    between = []

    def watched(sizes):
        for size in sizes:
            between.append(switches())
            yield size

    cam = HolisticCAM(any_net, [any_net.layer2], amp=True, progress=watched, **SIZES)
    with nullcontext() if own is None else torch.autocast("cpu", own):
        before = switches()
        (records,) = cam.intermediates(images)
        assert switches() == before
    assert set(types) == {torch.bfloat16}
    assert between == [before] * len(between) != []
    assert cam.outputs.dtype == torch.float32
    assert {t.dtype for step in records for t in (*step.activations, *step.weights)} == {torch.float32}


def test_without_it_nothing_is_in_bfloat16(any_net, images, types):
    HolisticCAM(any_net, [any_net.layer2], amp=False, **SIZES)(images)
    assert set(types) == {torch.float32}


def test_an_error_leaves_no_autocast_behind(net, images):
    net.layer3.register_forward_hook(lambda *_: 1 / 0)
    before = switches()
    with pytest.raises(ZeroDivisionError):
        HolisticCAM(net, [net.layer2], amp=True, **SIZES)(images)
    assert switches() == before


def test_it_can_be_switched_later(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    plain = cam(images)
    cam.amp = True
    assert np.array_equal(cam(images), HolisticCAM(net, [net.layer2], amp=True, **SIZES)(images))
    cam.amp = False
    assert np.array_equal(cam(images), plain)


def test_methods_that_run_the_model_through_the_recorder_get_it(any_net, images, types):
    cam = FinerCAM(any_net, [any_net.layer2], base_method=partial(HolisticCAM, amp=True, **SIZES))
    maps = cam(images, [ClassifierOutputTarget(1)] * len(images))
    assert set(types) == {torch.bfloat16}
    assert maps.std() > 0.01


def test_what_it_can_not_do_is_told_before_any_pass(net, images, seen_passes):
    with pytest.raises(TypeError, match="amp must be True or False, got 'bfloat16'"):
        HolisticCAM(net, [net.layer2], amp="bfloat16")
    meta = nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta")
    with pytest.raises(ValueError, match="amp=True needs a device with bfloat16, got a model on meta: leave amp out"):
        HolisticCAM(meta, [meta[0]], amp=True)
    cam = HolisticCAM(net, [net.layer2], amp=True, **SIZES)
    for dtype in (torch.float16, torch.bfloat16):
        net.to(dtype)
        told = f"amp=True needs a float32 model, got parameters of {dtype}: leave amp out"
        for explain in (lambda: HolisticCAM(net, [net.layer2], amp=True), lambda: cam(images)):
            with pytest.raises(ValueError, match=told):
                explain()
    assert not seen_passes


@pytest.fixture
def seen_passes(net):
    """A line for each pass of the net."""
    passes = []
    net.register_forward_pre_hook(lambda *_: passes.append("pass"))
    return passes
