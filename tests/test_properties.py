"""What holds for every shape, size and target, tried on random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import CAMERAS, HolisticCAM
from tests.random_nets import assert_sound, tried

few = tried(12)

sides = st.integers(32, 80)
shorter_sides = st.lists(st.integers(32, 112), min_size=1, max_size=3)
layers = st.lists(st.sampled_from(["layer1", "layer2", "layer3"]), min_size=1, max_size=3)
names = st.sampled_from(["plain", "residual", "signed"])

# A random target may have no evidence, or a hot spot too small for the wrap; the map must be sound all the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore:a saliency map is constant"),
    pytest.mark.filterwarnings("ignore:the mask is zero everywhere"),
]


@few
@given(
    names,
    sides,
    sides,
    shorter_sides,
    layers,
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_maps_are_sound(make_net, make_images, name, height, width, sizes, layers, categories, aug, eigen):
    net, images = make_net(name), make_images(len(categories), height, width)
    cam = HolisticCAM(net, [net.get_submodule(layer) for layer in layers], sizes=sizes, batch_size=2)
    targets = [ClassifierOutputTarget(category) for category in categories]
    maps = cam(images, targets, aug_smooth=aug, eigen_smooth=eigen)
    assert_sound(maps, (len(categories), height, width))
    if not aug:
        for one in maps:
            assert (one.min(), one.max()) in ((0, 1), (0, 0))


@few
@given(names, sides, sides, st.sampled_from([1, 2, 5]), st.sampled_from([HolisticCAM, CAMERAS]), st.booleans())
def test_a_batch_equals_its_single_images(make_net, make_images, name, height, width, batch_size, method, fsd):
    net, images = make_net(name), make_images(5, height, width)
    targets = [ClassifierOutputTarget(category) for category in (0, 1, 2, 3, 4)]
    cam = method(net, [net.layer2], sizes=[32, 70], fsd=fsd, batch_size=batch_size)
    maps = cam(images, targets)
    singles = [cam(images[i : i + 1], targets[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(maps, singles, atol=1 / 255 if fsd else 1e-4)


@few
@given(names, sides, sides, st.integers(1, 3), st.booleans(), st.booleans())
@pytest.mark.campaign
def test_a_repetition_is_bit_identical(make_net, make_images, name, height, width, batch, aug, eigen):
    net, images = make_net(name), make_images(batch, height, width)
    cam = HolisticCAM(net, [net.layer1, net.layer3], sizes=[32, 70])
    first = cam(images, None, aug, eigen)
    torch.manual_seed(height)  # the state of the generators is of no matter
    assert np.array_equal(cam(images, None, aug, eigen), first)
    assert np.array_equal(HolisticCAM(net, [net.layer1, net.layer3], sizes=[32, 70])(images, None, aug, eigen), first)


def test_the_input_is_left_alone(net, images):
    before = images.clone()
    HolisticCAM(net, [net.layer1], sizes=[64, 80])(images, aug_smooth=True)
    assert torch.equal(images, before)
    assert not images.requires_grad
