"""The evidence E of the class mask, against a literal transcription, HiResCAM and a linear head's contributions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam import HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import HolisticCAM, class_evidence
from holistic_cam_plugin.method.class_mask import find_evidence
from tests.conftest import to_canvas

SIZES = [(5, 7), (9, 12), (14, 19)]
CANVAS = (33, 44)


def stacks(channels=6, signed=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    activations = [torch.randn(channels, *size, generator=generator) for size in SIZES]
    gradients = [torch.randn(channels, *size, generator=generator) for size in SIZES]
    return activations if signed else [a.relu() for a in activations], gradients


def literal(activations, gradients, against):
    a = np.mean([to_canvas(x[None].double(), CANVAS) for x in activations], axis=0)
    b = np.mean([to_canvas((-x).relu()[None].double(), CANVAS) for x in activations], axis=0)
    positive = np.mean([to_canvas(x.relu()[None].double(), CANVAS) for x in gradients], axis=0)
    negative = np.mean([to_canvas((-x).relu()[None].double(), CANVAS) for x in gradients], axis=0)
    plus = a + b  # A+ = A + A-
    total = plus * (positive - against * negative) + b * (negative - against * positive)
    return np.maximum(total.sum(axis=0), 0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("against", [0, 0.5, 1, 1.5])
def test_it_is_the_literal_one(signed, against):
    activations, gradients = stacks(signed=signed)
    found = class_evidence(activations, gradients, CANVAS, against)
    expected = literal(activations, gradients, against)
    assert found.dtype == np.float32
    assert found.shape == CANVAS
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


def test_at_one_scale_it_is_hirescam(net, images):
    """On the layer's own grid: HiResCAM clamps before it resizes, and E after."""
    target = ClassifierOutputTarget(1)
    cam = HiResCAM(net, [net.layer3])
    cam(images[:1], [target])
    activations, gradients = (
        stack[0] for stack in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
    )
    arrays = activations.numpy(), gradients.numpy()
    expected = np.maximum(cam.get_cam_image(images[:1], net.layer3, [target], *arrays, False), 0)[0]
    found = class_evidence([activations[0]], [gradients[0]], tuple(activations.shape[2:]))
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_what_speaks_against_the_class_is_zero():
    """Two halves, each with a feature of one class: a linear head's contribution decides."""
    activations = torch.zeros(2, 4, 8)
    activations[0, :, :4], activations[1, :, 4:] = 1, 1
    for weights, quiet in (([1.0, -0.5], np.s_[:, 5:]), ([-0.5, 1.0], np.s_[:, :3])):
        gradients = torch.tensor(weights)[:, None, None].expand(2, 4, 8)
        found = class_evidence([activations], [gradients], (4, 8))
        assert found[quiet].max() == 0
        assert found.max() == 1


def test_larger_values_are_stricter():
    activations, gradients = stacks()
    maps = [class_evidence(activations, gradients, CANVAS, against) for against in (0, 0.5, 1, 1.5, 2)]
    for weaker, stricter in itertools.pairwise(maps):
        assert (stricter <= weaker + 1e-6).all()
        assert stricter.sum() < weaker.sum()


def test_a_strict_mask_that_leaves_nothing_is_relaxed():
    activations = torch.ones(2, 8, 8)
    gradients = torch.tensor([2.0, -1.0])[:, None, None].expand(2, 8, 8)
    for against, expected in ((0, 2.0), (1.5, 0.5), (3, 1.0)):  # with 3, nothing is left: as with 1
        found = find_evidence([activations], [gradients], (64, 64), against)
        np.testing.assert_allclose(found, np.full((64, 64), expected))
    assert find_evidence([activations], [-gradients], (64, 64), 3) is None
    # A dot, which the median filter erases, is no evidence either.
    activations = torch.zeros(1, 64, 64)
    activations[0, 20, 20] = 1
    assert find_evidence([activations], [torch.ones(1, 64, 64)], (64, 64), 1) is None
    assert find_evidence([activations], [torch.ones(1, 64, 64)], (64, 64), 1, blur_size=1) is not None


def test_of_volumes():
    """A volume whose slices are alike has the map of a slice in each."""
    activations, gradients = stacks(signed=True)
    deep = [[x[:, None].expand(-1, 3, -1, -1) for x in stack] for stack in (activations, gradients)]
    found = class_evidence(*deep, (4, *CANVAS), 1.5)
    expected = class_evidence(activations, gradients, CANVAS, 1.5)
    np.testing.assert_allclose(found, np.stack([expected] * 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("against", "error"),
    [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_only_numbers_of_at_least_zero(against, error, net):
    activations, gradients = stacks()
    with pytest.raises(error, match="against must be"):
        class_evidence(activations, gradients, CANVAS, against)
    with pytest.raises(error, match="against must be"):
        HolisticCAM(net, [net.layer1], against=against)
