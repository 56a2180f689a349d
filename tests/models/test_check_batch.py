"""Models whose output for an image depends on the other images of its batch are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Convolution, pooling, head; `passes` counts the images of each pass."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.features, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.passes: list[int] = []

    def pool(self, maps: Tensor) -> Tensor:
        return maps.relu().mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # not one of the checks
            self.passes.append(len(images))
        return self.head(self.pool(self.features(images)))


class Centred(Net):
    """Subtracts half the mean of the batch."""

    def pool(self, maps: Tensor) -> Tensor:
        pooled = super().pool(maps)
        return pooled - 0.5 * pooled.mean(0, keepdim=True)


class Attending(Net):
    """Each image attends to the others."""

    def pool(self, maps: Tensor) -> Tensor:
        pooled = super().pool(maps)
        return (pooled @ pooled.T).softmax(1) @ pooled + maps.amax((2, 3)).roll(1, 0)


class Noisy(Net):
    """Gives other values in each pass."""

    def pool(self, maps: Tensor) -> Tensor:
        pooled = super().pool(maps)
        return pooled * (1 + torch.rand_like(pooled))


@pytest.mark.parametrize("kind", [Centred, Attending])
def test_siblings_that_depend_on_one_another_are_refused(kind: type[Net]) -> None:
    net = kind().eval()
    cam = HolisticCAM(net, [net.features], sizes=[32, 48], batch_size=2)
    with pytest.raises(ValueError, match=r"depends on the other images of its batch.*one image per call"):
        cam(IMAGES)
    assert not net.passes  # refused before any work
    assert cam(IMAGES[:1]).shape == (1, 32, 32)
    with pytest.raises(ValueError, match="one image per call"):
        cam(IMAGES)


def test_windows_that_depend_on_one_another_are_refused() -> None:
    net = Centred().eval()
    with pytest.raises(ValueError, match="one image per call"):
        HolisticCAM(net, [net.features], sizes=[32, 64], tiles=True)(IMAGES[:1])


@pytest.mark.parametrize("kind", [Net, Noisy])
def test_others_are_checked_once_and_left_as_they_were(kind: type[Net]) -> None:
    net = kind().eval()
    cam = HolisticCAM(net, [net.features], sizes=[32, 48])
    ran: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, given: ran.append(given[0]))
    cam(IMAGES)
    first, explained = len(ran), len(net.passes)
    cam(IMAGES)
    assert len(net.passes) == 2 * explained
    assert len(ran) < 2 * first
    second = len(ran)
    cam(IMAGES)
    assert len(ran) - second == second - first


def test_the_random_state_is_kept() -> None:
    net = Net().eval()
    state = torch.random.get_rng_state()
    HolisticCAM(net, [net.features], sizes=[32, 48])(IMAGES)
    assert torch.equal(torch.random.get_rng_state(), state)


class Largest(Net):
    """Divides by the largest feature of the batch."""

    def pool(self, maps: Tensor) -> Tensor:
        pooled = super().pool(maps)
        return pooled / pooled.max()


class Causal(Net):
    """Each image sees those before it, as an LSTM that takes the batch for time."""

    def pool(self, maps: Tensor) -> Tensor:
        return super().pool(maps).cumsum(0)


class Bag(Net):
    """One row for all images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mean(0, keepdim=True)


@pytest.mark.parametrize("kind", [Centred, Largest, Causal])
def test_images_that_pass_one_by_one_are_explained(kind: type[Net]) -> None:
    net = kind().eval()
    maps = HolisticCAM(net, [net.features], sizes=[32, 48])(IMAGES)
    alone = HolisticCAM(net, [net.features], sizes=[32, 48])(IMAGES[1:])
    assert abs(maps[1] - alone[0]).max() < 1e-5
    with pytest.raises(ValueError, match="depends on the other images of its batch"):
        HolisticCAM(net, [net.features], sizes=[32, 48], batch_size=2)(IMAGES)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_bag_is_refused(batch_size: int) -> None:
    net = Bag().eval()
    with pytest.raises(ValueError, match="one row for several images"):
        HolisticCAM(net, [net.features], sizes=[32, 48], batch_size=batch_size)(IMAGES)
