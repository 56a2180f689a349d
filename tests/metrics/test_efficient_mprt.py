"""eMPRT: entropies in closed form, relative increase, and no side effects on the model."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin.metrics import (
    EfficientMPRT,
    efficient_mprt,
    histogram_entropy,
    independent_randomization,
)


def literal_entropy(saliency_map: np.ndarray, bins: int) -> float:
    low, high = float(saliency_map.min()), float(saliency_map.max())
    counts = [0] * bins
    for value in saliency_map.ravel().tolist():
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    shares = [count / saliency_map.size for count in counts if count]
    return -sum(share * math.log(share) for share in shares)


def test_entropy():
    even = np.arange(200.0).reshape(1, 10, 20)
    halves = np.zeros((1, 10, 20))
    halves[:, 5:] = 1
    quarter = np.where(np.arange(200).reshape(1, 10, 20) < 50, 3.0, 1.0)
    maps = np.concatenate([even, halves, quarter, np.full((1, 10, 20), 7.0)])
    expected = [math.log(100), math.log(2), math.log(4) / 4 + 0.75 * math.log(4 / 3), 0]
    np.testing.assert_allclose(histogram_entropy(maps), expected, atol=1e-12)
    np.testing.assert_allclose(histogram_entropy(-5 * maps + 1), expected, atol=1e-12)
    assert histogram_entropy(even, bins=8)[0] == pytest.approx(math.log(8))


@pytest.mark.parametrize("bins", [1, 7, 100])
def test_entropy_literally(bins):
    maps = np.random.default_rng(0).random((2, 30, 40)) ** 4
    np.testing.assert_allclose(histogram_entropy(maps, bins), [literal_entropy(one, bins) for one in maps], atol=1e-12)


def test_a_narrow_range_has_room_for_the_bins():
    maps = np.full((1, 4, 4), 1e4, dtype=np.float32)
    maps[0, 0] = np.nextafter(np.float32(1e4), np.float32(2e4))
    assert histogram_entropy(maps)[0] == pytest.approx(literal_entropy(maps[0], 2))


def test_relative_increase():
    rng = np.random.default_rng(1)
    simple, complex_ = np.zeros((1, 20, 20)), rng.random((1, 20, 20))
    simple[0, :10] = 1
    rise = efficient_mprt(simple, complex_)[0]
    assert rise == pytest.approx(histogram_entropy(complex_)[0] / math.log(2) - 1)
    assert rise > 0
    assert efficient_mprt(complex_, simple)[0] < 0
    assert efficient_mprt(complex_, complex_) == 0
    assert efficient_mprt(complex_, np.zeros((1, 20, 20))) == -1
    assert np.isnan(efficient_mprt(np.zeros((1, 20, 20)), complex_)).all()


def test_called_as_a_metric_of_pytorch_grad_cam(net, images):
    targets = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]
    seen = []

    def cam_of(model):
        seen.append(model)
        return GradCAM(model, [model.layer2])

    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    cams = cam_of(net)(images, targets)
    values = EfficientMPRT(cam_of, bins=50, seed=4)(images, cams, targets, net)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    (randomized,) = seen[1:]
    assert all(not torch.equal(value, before[key]) for key, value in randomized.state_dict().items())
    ((_, expected),) = independent_randomization(net, [""], seed=4)
    literal = GradCAM(expected, [expected.layer2])(images, targets)
    np.testing.assert_array_equal(values, efficient_mprt(cams, literal, bins=50))
    assert values.shape == (2,)


def test_invalid_arguments(net, images):
    maps = np.ones((1, 4, 4))
    with pytest.raises(ValueError, match=r"same shape, got \(1, 4, 4\) and \(1, 4, 5\)"):
        efficient_mprt(maps, np.ones((1, 4, 5)))
    with pytest.raises(ValueError, match="NaN"):
        efficient_mprt(maps, maps * np.nan)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        histogram_entropy(maps, bins=0)
    with pytest.raises(TypeError, match="bins must be an integer"):
        EfficientMPRT(lambda model: model, bins=2.5)
    with pytest.raises(ValueError, match=r"shape .* of the images"):
        EfficientMPRT(lambda model: model)(images, maps, [ClassifierOutputTarget(0)] * 2, net)
