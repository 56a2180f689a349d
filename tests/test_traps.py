"""Models, targets and loops that behave as real ones do: nothing is left changed, nothing else is explained."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.metrics import Deletion, EnergyPointingGame, RelativeROAD

pytestmark = [
    pytest.mark.filterwarnings("ignore:a saliency map is constant"),
    pytest.mark.filterwarnings("ignore:the mask is zero everywhere"),
]


class Merging(nn.Module):
    """A low-rank adapter's way: evaluation mode merges it into the weight, training mode takes it out again."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.adapter, self.merged = nn.Parameter(torch.ones(1)), nn.Parameter(torch.full((1,), 0.5)), False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -self.adapter.data if mode else self.adapter.data
            self.merged = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.weight if self.merged else self.weight + self.adapter)


@pytest.mark.parametrize("way", ["call", "with", "error", "metric"])
def test_a_module_that_does_something_at_a_change_of_mode(net, images, way):
    """Weights that are merged for evaluation are taken apart again: else training goes on with the adapter cut off."""
    model = nn.Sequential(Merging(), net).train()
    cam = HolisticCAM(model, [net.layer2], sizes=[64])
    targets = [ClassifierOutputTarget(1)] * 2
    if way == "call":
        cam(images)
    elif way == "with":
        with cam:
            pass
    elif way == "error":
        with pytest.raises(ZeroDivisionError):
            cam(images, [lambda output: 1 / 0] * 2)
    else:
        Deletion(step=2048)(images, np.ones((2, 64, 64), np.float32), targets, model)
    assert all(module.training for module in model.modules())
    assert not model[0].merged
    assert float(model[0].weight) == 1


def test_an_image_s_map_does_not_depend_on_its_batch(make_images):
    """Also where the layer is negative in one image alone: at some scales an image may have no negative activation.

    The weights of both signs are those of the image, not of whatever lies in the batch beside it.
    """
    images = make_images(2, 6, 21, seed=4)
    torch.manual_seed(0)
    worst = 0.0
    for bias in torch.linspace(-1, 3, 41):
        conv = nn.Conv2d(3, 2, 1, stride=2)
        with torch.no_grad():
            conv.bias.fill_(float(bias))
        model = nn.Sequential(conv, nn.Flatten(2), Mean(), nn.Linear(2, 3)).eval()
        for weighting in ("pge", "positive"):
            targets = [ClassifierOutputTarget(0), ClassifierOutputTarget(1)]
            options = {"weighting": weighting, "fsd": False, "sizes": [6, 9]}
            (alone,), (batch,) = (
                HolisticCAM(model, [conv], batch_size=size, **options).intermediates(images, targets) for size in (1, 2)
            )
            for one, other in zip(alone, batch, strict=True):
                largest = max(float(np.abs(one.fused).max()), 1e-6)
                worst = max(worst, float(np.abs(one.fused - other.fused).max()) / largest)
    assert worst < 1e-3


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=-1)


@pytest.mark.parametrize(
    "progress",
    [lambda scales: list(scales)[::-1], lambda scales: list(scales)[:1], lambda scales: [], lambda scales: None],
    ids=["reversed", "cut", "empty", "none"],
)
def test_a_loop_that_does_not_give_the_scales_as_they_are(net, images, progress):
    with pytest.raises((TypeError, ValueError), match=r"^progress (yielded|returned)"):
        HolisticCAM(net, [net.layer2], sizes=[64, 96], progress=progress)(images)


def test_layers_and_model_that_are_set_later(net, make_net, images):
    """What the object says that it explains is what it explains, or it says that it can't."""
    cam = HolisticCAM(net, [net.layer2], sizes=[64, 96])
    for layers in ([net.layer3], [net.layer1, net.layer2]):
        cam.target_layers = layers
        assert np.array_equal(cam(images), HolisticCAM(net, layers, sizes=[64, 96])(images))
    other = make_net("residual")
    cam.model = other
    with pytest.raises(ValueError, match="not part of the model"):
        cam(images)
    cam.target_layers = [other.layer1]
    assert np.array_equal(cam(images), HolisticCAM(other, [other.layer1], sizes=[64, 96])(images))


def test_a_target_that_asks_the_same_object(net, images):
    """A map inside of a target's call: a clear error, never another map and never a deadlock."""
    cam = HolisticCAM(net, [net.layer2], sizes=[64, 96])
    expected = cam(images[:1], [ClassifierOutputTarget(1)])
    found: list[BaseException] = []

    def asking(output: torch.Tensor) -> torch.Tensor:
        cam(images[1:], [ClassifierOutputTarget(0)])
        return output[1]

    def work() -> None:
        with pytest.raises(RuntimeError, match="called the HolisticCAM that is running") as raised:
            cam(images[:1], [asking])
        found.append(raised.value)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert found, "a deadlock, or an error that says nothing"
    assert np.array_equal(cam(images[:1], [ClassifierOutputTarget(1)]), expected)


@pytest.mark.parametrize(
    "options",
    [{"eps": 10**400}, {"sizes": [10**30]}, {"num_scales": 2, "max_size": 10**30}],
    ids=["eps", "sizes", "max_size"],
)
def test_numbers_beyond_all_machines(net, images, options):
    with pytest.raises(ValueError, match="|".join(options)):
        HolisticCAM(net, [net.layer2], **options)(images)


@pytest.mark.parametrize("scale", [1, np.nan], ids=["real", "nan"])
def test_maps_and_boxes_with_an_imaginary_part(net, images, scale):
    maps = np.full((2, 64, 64), 0.5 + 1j * scale)
    targets = [ClassifierOutputTarget(1)] * 2
    for metric in (EnergyPointingGame([(8, 8, 40, 40)] * 2), RelativeROAD(), Deletion()):
        with pytest.raises((TypeError, ValueError), match=r"complex|real"):
            metric(images, maps, targets, net)
    with pytest.raises((TypeError, ValueError), match=r"complex|real|region"):
        EnergyPointingGame([np.array([8j, 8, 40, 40])] * 2)(images, np.ones((2, 64, 64)), targets, net)


@pytest.mark.parametrize("noise", [-1, float("inf"), "much"])
def test_a_noise_that_is_none(noise):
    with pytest.raises((TypeError, ValueError), match="noise"):
        RelativeROAD(noise=noise)
