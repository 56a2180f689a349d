"""The evidence E of the class mask, against a literal transcription, HiResCAM and a linear head's contributions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from pytorch_grad_cam import HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import HolisticCAM, class_evidence
from tests.conftest import to_canvas

SIZES = [(5, 7), (9, 12), (14, 19)]
CANVAS = (33, 44)


def stacks(channels=6, signed=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    activations = [torch.randn(channels, *size, generator=generator) for size in SIZES]
    gradients = [torch.randn(channels, *size, generator=generator) for size in SIZES]
    return activations if signed else [a.relu() for a in activations], gradients


def literal(activations, gradients, contrast):
    means = [
        np.mean([to_canvas(x[None].double(), CANVAS) for x in stack], axis=0)
        for stack in (activations, gradients, [a.abs() for a in activations], [g.abs() for g in gradients])
    ]
    net = np.maximum((means[0] * means[1]).sum(axis=0), 0)
    return net * (net / (means[2] * means[3]).sum(axis=0)) ** contrast


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("contrast", [0, 0.5, 1, 2])
def test_it_is_the_literal_one(signed, contrast):
    activations, gradients = stacks(signed=signed)
    found = class_evidence(activations, gradients, CANVAS, contrast)
    expected = literal(activations, gradients, contrast)
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
    maps = [class_evidence(activations, gradients, CANVAS, contrast) for contrast in (0, 0.5, 1, 2)]
    for weaker, stricter in pairwise(maps):
        assert (stricter <= weaker + 1e-6).all()
        assert stricter.sum() < weaker.sum()


def test_evidence_that_meets_evidence_against_it_counts_less():
    """Two objects with the same evidence for the class, of which one has as much more for and against it."""
    activations = torch.ones(2, 1, 2)
    gradients = torch.tensor([[[1.0, 3.0]], [[0.0, -2.0]]])
    np.testing.assert_allclose(class_evidence([activations], [gradients], (1, 2)), [[1, 1]])
    np.testing.assert_allclose(class_evidence([activations], [gradients], (1, 2), 1), [[1, 1 / 5]])


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_share_has_no_units(factor):
    activations, gradients = stacks()
    expected = factor * class_evidence(activations, gradients, CANVAS, 2).astype(np.float64)
    found = class_evidence(activations, [factor * g for g in gradients], CANVAS, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_nothing_is_nothing():
    zero = [torch.zeros(3, 4, 4)]
    assert not class_evidence(zero, zero, (8, 8), 1).any()


def test_of_volumes():
    """A volume whose slices are alike has the map of a slice in each."""
    activations, gradients = stacks(signed=True)
    deep = [[x[:, None].expand(-1, 3, -1, -1) for x in stack] for stack in (activations, gradients)]
    found = class_evidence(*deep, (4, *CANVAS), 1)
    expected = class_evidence(activations, gradients, CANVAS, 1)
    np.testing.assert_allclose(found, np.stack([expected] * 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("contrast", "error"),
    [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_only_numbers_of_at_least_zero(contrast, error, net):
    activations, gradients = stacks()
    with pytest.raises(error, match="contrast must be"):
        class_evidence(activations, gradients, CANVAS, contrast)
    with pytest.raises(error, match="contrast must be"):
        HolisticCAM(net, [net.layer1], contrast=contrast)
