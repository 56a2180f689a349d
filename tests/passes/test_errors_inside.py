"""What is raised inside a pass by a target, or by something that has nothing to do with it, is not taken for a refusal.

And what the model does to its input stays inside, too.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM

SMALL = {"sizes": [64, 80]}


@pytest.mark.parametrize("error", [RuntimeError, ValueError, AssertionError])
@pytest.mark.parametrize("message", ["once", "view size is not compatible", ""])
def test_an_error_of_a_target_is_raised_at_once(net, images, error, message):
    calls: list[int] = []

    def target(output: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise error(message)
        return output[0]

    cam = HolisticCAM(net, [net.layer2], **SMALL)
    expected = cam(images, [lambda output: output[0]] * 2)
    cam = HolisticCAM(net, [net.layer2], **SMALL)
    with pytest.raises(error, match=f"^{message}$"):
        cam(images, [target] * 2)
    assert len(calls) == 1
    assert np.array_equal(cam(images, [target] * 2), expected)  # to the last bit: the layout is what it was


def test_an_error_that_comes_once_is_tried_again_in_the_contiguous_format(net, images):
    """Whatever a model raises for images with the channels last, it gets them in the contiguous format once."""
    expected = HolisticCAM(net, [net.layer2], **SMALL)(images)
    calls: list[bool] = []

    def once(_, inputs) -> None:
        calls.append(inputs[0].is_contiguous())
        if len(calls) == 1:
            raise KeyError("whatever")

    net.layer1.register_forward_pre_hook(once)
    np.testing.assert_allclose(HolisticCAM(net, [net.layer2], **SMALL)(images), expected, atol=1 / 255)
    assert calls[:2] == [False, True]


def test_an_error_in_both_formats_is_the_second_one(net, images):
    calls: list[int] = []

    def always(*_: object) -> None:
        calls.append(1)
        raise RuntimeError(f"call {len(calls)}")

    net.layer1.register_forward_pre_hook(always)
    with pytest.raises(RuntimeError, match=r"^call 2$"):
        HolisticCAM(net, [net.layer2], **SMALL)(images)


class PooledByView(nn.Module):
    """Takes the channels last for maps of one position alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1).view(*x.shape[:2], -1).mean(-1)


def test_a_layout_that_is_refused_at_a_larger_scale_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 8, stride=8), nn.ReLU(), PooledByView(), nn.Linear(5, 3)).eval()
    images = torch.rand(1, 3, 8, 8)
    usual = nn.Sequential(net[0], net[1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), net[3]).eval()
    maps = HolisticCAM(net, [net[1]], sizes=[8, 16])(images)
    np.testing.assert_allclose(maps, HolisticCAM(usual, [net[1]], sizes=[8, 16])(images), atol=1e-5)


class InPlace(nn.Module):
    """Normalises its input where it lies."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.sub_(0.5).div_(0.2))


@pytest.mark.parametrize("sizes", [[64, 80], [80, 96], [64]])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("aug_smooth", [False, True])
def test_a_model_that_changes_its_input_in_place(net, sizes, channels, memory_format, aug_smooth):
    if channels == 1:
        net.layer1[0] = nn.Conv2d(1, net.layer1[0].out_channels, 3, padding=1)
    images = torch.rand(2, channels, 64, 64).to(memory_format=memory_format)
    before = images.clone()
    model = InPlace(net).eval()
    maps = HolisticCAM(model, [net.layer2], sizes=sizes)(images, aug_smooth=aug_smooth)
    assert torch.equal(images, before)

    class Copies(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return self.net((x - 0.5) / 0.2)

    expected = HolisticCAM(Copies(net).eval(), [net.layer2], sizes=sizes)(images, aug_smooth=aug_smooth)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
