"""Arguments and side effects of every metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import (
    Deletion,
    EnergyPointingGame,
    Insertion,
    OverAll,
    RelativeROAD,
    SeededROADCombined,
)
from holistic_cam_plugin.metrics.inputs import check_maps, find_device
from tests.metrics.recorder import Recorder

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MAPS = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
TARGETS = [ClassifierOutputTarget(0), ClassifierOutputTarget(1)]
METRICS = [
    Deletion(),
    Insertion(),
    OverAll(),
    RelativeROAD([50]),
    SeededROADCombined([50]),
    EnergyPointingGame([(0, 0, 8, 8)] * 2),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
class TestEveryMetric:
    def test_returns_one_finite_value_per_image(self, metric):
        figures = metric(IMAGES, MAPS, TARGETS, Recorder())
        assert figures.shape == (2,)
        assert figures.dtype == np.float64
        assert np.isfinite(figures).all()

    def test_leaves_model_and_random_state_alone(self, metric):
        model = Recorder().train()
        model.drop.eval()
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
        metric(IMAGES, MAPS, TARGETS, model)
        assert model.training
        assert not model.drop.training
        assert model.scale.grad is None
        assert model.modes <= {(False, True), (False, False)}
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert (np.random.get_state()[1] == numpy_state).all()

    def test_flags_are_restored_after_an_error(self, metric):
        if isinstance(metric, EnergyPointingGame):
            pytest.skip("runs no model")
        model = Recorder().train()
        with pytest.raises(IndexError):
            metric(IMAGES, MAPS, [ClassifierOutputTarget(99)] * 2, model)
        assert model.training

    def test_is_deterministic_and_independent_of_the_batch(self, metric):
        model = Recorder()
        first = metric(IMAGES, MAPS, TARGETS, model)
        np.testing.assert_array_equal(metric(IMAGES, MAPS, TARGETS, model), first)
        if not isinstance(metric, EnergyPointingGame):
            second = metric(IMAGES[1:], MAPS[1:], TARGETS[1:], model)
            np.testing.assert_allclose(second, first[1:], rtol=1e-6)

    def test_takes_tensors_and_flipped_views_as_maps(self, metric):
        flipped = MAPS[:, ::-1]
        expected = metric(IMAGES, flipped.copy(), TARGETS, Recorder())
        np.testing.assert_array_equal(metric(IMAGES, flipped, TARGETS, Recorder()), expected)
        tensor = torch.from_numpy(flipped.copy()).requires_grad_()
        np.testing.assert_array_equal(metric(IMAGES, tensor, TARGETS, Recorder()), expected)

    @pytest.mark.parametrize(
        ("images", "cams", "targets", "error", "message"),
        [
            (IMAGES, MAPS[:1], TARGETS, ValueError, r"cams must have the shape .* \(2, 16, 16\), got \(1, 16, 16\)"),
            (IMAGES, MAPS[:, :8], TARGETS, ValueError, r"got \(2, 8, 16\)"),
            (IMAGES, MAPS[0], TARGETS, ValueError, r"cams must be a batch \(B, H, W\)"),
            (IMAGES, MAPS, TARGETS[:1], ValueError, "got 1 targets for 2 images"),
            (IMAGES, MAPS, None, TypeError, "metrics need one target per image"),
            (IMAGES, MAPS, [0, 1], TypeError, "every target must be callable"),
            (IMAGES[0], MAPS, TARGETS, ValueError, r"input_tensor must be a batch"),
            (IMAGES.int(), MAPS, TARGETS, TypeError, "floating-point"),
            (IMAGES, np.where(MAPS[1, 3, 3] == MAPS, np.nan, MAPS), TARGETS, ValueError, r"NaN .* in map \[1\]"),
        ],
    )
    def test_rejects_arguments_that_do_not_fit_together(self, metric, images, cams, targets, error, message):
        with pytest.raises(error, match=message):
            metric(images, cams, targets, Recorder())


def test_empty_batches_are_rejected():
    with pytest.raises(ValueError, match=r"got shape \(0, 2, 2\)"):
        check_maps(np.zeros((0, 2, 2)))


def test_device_of_the_model():
    assert find_device(nn.Linear(1, 1, device="meta"), IMAGES) == torch.device("meta")
    assert find_device(nn.Identity(), IMAGES) == torch.device("cpu")
    assert find_device(nn.Identity(), None) == torch.device("cpu")
