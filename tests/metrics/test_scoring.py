"""Inputs of the metrics, scoring in batches, and the order of the pixels."""

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
    class_probability,
    relevance_ranks,
    score_copies,
    tied_pixels,
)
from holistic_cam_plugin.metrics.scoring import check_maps, model_device

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


class Recorder(nn.Module):
    """Pooled channels as class scores; remembers the sizes of its batches and in which mode it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout()
        self.batches: list[int] = []
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        self.modes.add((self.training or self.drop.training, torch.is_inference_mode_enabled()))
        return self.drop(images.mean(dim=(2, 3))) * self.scale


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
class TestEveryMetric:
    def test_gives_one_finite_figure_an_image(self, metric):
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
            (IMAGES, MAPS, None, TypeError, "metrics need targets"),
            (IMAGES, MAPS, [0, 1], TypeError, "every target must be callable"),
            (IMAGES[0], MAPS, TARGETS, ValueError, r"input_tensor must be a batch"),
            (IMAGES.int(), MAPS, TARGETS, TypeError, "floating-point"),
            (IMAGES, np.where(MAPS[1, 3, 3] == MAPS, np.nan, MAPS), TARGETS, ValueError, r"NaN .* in map \[1\]"),
        ],
    )
    def test_refuses_inputs_that_do_not_belong_together(self, metric, images, cams, targets, error, message):
        with pytest.raises(error, match=message):
            metric(images, cams, targets, Recorder())


class TestScoreCopies:
    @pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (99, [5])])
    def test_batches(self, batch_size, batches):
        model = Recorder()
        copies = [(TARGETS[0], image) for image in torch.rand(5, 3, 4, 4)]
        scores = score_copies(model, copies, class_probability, batch_size)
        assert model.batches == batches
        expected = [float(image.mean(dim=(1, 2)).softmax(dim=0)[0]) for _, image in copies]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        assert model.modes == {(False, True)}

    def test_copies_are_made_when_they_are_needed(self):
        model, made = Recorder(), []

        def copies():
            for number in range(6):
                made.append((number, len(model.batches)))
                yield TARGETS[0], torch.zeros(3, 2, 2)

        score_copies(model, copies(), class_probability, 2)
        assert made == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]

    def test_other_heads(self):
        class Segmenter(nn.Module):
            def forward(self, images):
                return images

        copies = [(TARGETS[0], torch.ones(3, 4, 4))]
        with pytest.raises(ValueError, match=r"class probabilities need outputs of shape \(B, classes\).*score="):
            score_copies(Segmenter(), copies, class_probability, 1)
        with pytest.raises(ValueError, match=r"must give one value an image, as a tensor, got shape \(3, 4\)"):
            score_copies(Segmenter(), copies, torch.sigmoid, 1)
        with pytest.raises(ValueError, match=r"got 0\.5"):
            score_copies(Segmenter(), [(lambda row: 0.5, torch.ones(3, 4, 4))], torch.sigmoid, 1)
        value = score_copies(Segmenter(), [(lambda row: row[0].mean(), torch.ones(3, 4, 4))], torch.sigmoid, 1)
        assert value == pytest.approx(1 / (1 + np.exp(-1)))

    def test_structured_outputs_are_refused(self):
        class Tuple(nn.Module):
            def forward(self, images):
                return (images,)

        with pytest.raises(TypeError, match="returned a tuple"):
            score_copies(Tuple(), [(TARGETS[0], torch.ones(3, 4, 4))], class_probability, 1)

    def test_half_precision_outputs_become_float32_probabilities(self):
        assert class_probability(torch.zeros(1, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_device_of_the_model():
    assert model_device(nn.Linear(1, 1, device="meta"), IMAGES) == torch.device("meta")
    assert model_device(nn.Identity(), IMAGES) == torch.device("cpu")
    assert model_device(nn.Identity(), None) == torch.device("cpu")


class TestOrder:
    def test_descending_and_ties_row_by_row(self):
        ranks = relevance_ranks(np.array([[[0.0, 0.5, 0.0], [1.0, 0.5, 0.0]]]))
        np.testing.assert_array_equal(ranks, [[[3, 1, 4], [0, 2, 5]]])

    def test_every_map_has_its_own_permutation(self):
        ranks = relevance_ranks(MAPS)
        for rank, saliency_map in zip(ranks, MAPS, strict=True):
            assert sorted(rank.ravel()) == list(range(256))
            np.testing.assert_array_equal(
                saliency_map.ravel()[np.argsort(rank.ravel())], np.sort(saliency_map.ravel())[::-1]
            )

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
    def test_whole_numbers_do_not_wrap_around(self, dtype):
        np.testing.assert_array_equal(relevance_ranks(np.array([[[0, 1]]], dtype=dtype)), [[[1, 0]]])

    def test_share_of_ties(self):
        maps = np.array([[[1, 2], [3, 4]], [[1, 1], [3, 4]], [[0, 0], [0, 0]], [[1, 1], [2, 2]]], dtype=np.float32)
        np.testing.assert_array_equal(tied_pixels(maps), [0, 0.5, 1, 1])

    def test_empty_batch_is_refused(self):
        with pytest.raises(ValueError, match=r"got shape \(0, 2, 2\)"):
            check_maps(np.zeros((0, 2, 2)))
