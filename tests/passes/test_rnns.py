"""Recurrent layers run without cuDNN, whose backward pass refuses evaluation mode; the switch is restored."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, explainable
from holistic_cam_plugin.passes.rnns import native_rnns

SIZES = {"sizes": [64, 80], "weighting": "positive", "fsd": False}


class Reads(nn.Module):
    """A CNN whose columns an RNN reads."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        self.rnn, self.head = kind(8, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.features(images).mean(2).transpose(1, 2)
        return self.head(self.rnn(columns)[0][:, -1])


@pytest.fixture(params=[nn.LSTM, nn.GRU, nn.RNN])
def model(request, monkeypatch):
    """Imitates the rule of cuDNN: no gradients through layers that ran with it in evaluation mode."""
    forward = request.param.forward

    def refuse(self, *args, **kwargs):
        if torch.backends.cudnn.enabled and not self.training and torch.is_grad_enabled():
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(request.param, "forward", refuse)
    return Reads(request.param).eval()


@pytest.mark.parametrize("enabled", [True, False])
def test_an_rnn_is_explained_as_without_cudnn(model, make_images, enabled):
    with torch.backends.cudnn.flags(enabled=False):
        expected = HolisticCAM(model, [model.features], **SIZES)(make_images(1))
    with torch.backends.cudnn.flags(enabled=enabled):
        maps = HolisticCAM(model, [model.features], **SIZES)(make_images(1))
        assert torch.backends.cudnn.enabled == enabled
    np.testing.assert_array_equal(maps, expected)
    assert maps.max() == 1
    assert not model.rnn._forward_hooks
    assert not model.rnn._forward_pre_hooks


def test_the_layers_of_a_model_with_an_rnn_are_found(model, make_images):
    found = explainable(model, size=(64, 64))
    assert found.layer_names == ["features"]
    assert ClassHolisticCAM(model, [model.features], sizes=[64, 80])(make_images(1)).shape == (1, 64, 64)
    assert torch.backends.cudnn.enabled


def test_other_layers_keep_cudnn(make_images):
    model, seen = Reads(nn.GRU).eval(), {}
    for name in ("features.0", "rnn", "head"):
        forward = model.get_submodule(name).forward

        def watch(*args, name=name, forward=forward):
            seen.setdefault(name, set()).add(torch.backends.cudnn.enabled)
            return forward(*args)

        model.get_submodule(name).forward = watch
    HolisticCAM(model, [model.features], **SIZES)(make_images(1))
    assert seen == {"features.0": {True}, "rnn": {False}, "head": {True}}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_switch_is_restored_after_an_error(error):
    model = nn.Sequential(nn.GRU(2, 2))

    def fail(*_):
        assert not torch.backends.cudnn.enabled
        raise error

    model[0].forward = fail
    with pytest.raises(error), native_rnns(model):
        model(torch.rand(1, 1, 2))
    assert torch.backends.cudnn.enabled


def test_the_last_of_several_threads_restores_the_switch():
    """The first one to start is the first one to end."""
    first, second = nn.GRU(2, 2), nn.GRU(2, 2)
    started, ended = threading.Event(), threading.Event()
    seen = []

    def slow(*_):
        started.set()
        assert ended.wait(30)
        seen.append(torch.backends.cudnn.enabled)

    second.forward = slow

    def run():
        with native_rnns(second):
            second(torch.rand(1, 1, 2))

    thread = threading.Thread(target=run)
    original = first.forward

    def meanwhile(*args):
        thread.start()
        assert started.wait(30)
        return original(*args)

    first.forward = meanwhile
    with native_rnns(first):
        first(torch.rand(1, 1, 2))
    assert not torch.backends.cudnn.enabled
    ended.set()
    thread.join()
    assert seen == [False]
    assert torch.backends.cudnn.enabled
