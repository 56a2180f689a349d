"""Deletion and insertion against closed forms, a literal loop and torchcam's implementation."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from holistic_cam_plugin.metrics import Curve, Deletion, FidelityCurves, Insertion, OverAll, blur

TARGET = [ClassifierOutputTarget(0)]


class Linear(nn.Module):
    """Two raw scores: a weighted sum of the pixels, and 0."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = (images * self.weights).sum(dim=(1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def raw(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


def zeros(images: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(images)


def conv_net(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(1))


class TestLinearScore:
    """The score is a sum over the pixels: every point of the curves is known."""

    def test_curves_pixel_by_pixel(self, pixels):
        model = Linear(torch.ones(1, 5, 7))
        descending = np.sort(pixels.numpy().ravel())[::-1]
        inserted = np.concatenate([[0], np.cumsum(descending, dtype=np.float64)])
        metric = OverAll(step=1, score=raw)
        metric.insertion.baseline = zeros
        curves = metric.curves(pixels, pixels[:, 0], TARGET, model)
        shares = np.arange(36) / 35
        for curve, expected in ((curves.insertion, inserted), (curves.deletion, inserted[-1] - inserted)):
            np.testing.assert_allclose(curve.shares, shares, rtol=1e-15)
            np.testing.assert_allclose(curve.scores, expected[None], atol=1e-5)
        np.testing.assert_allclose(metric(pixels, pixels[:, 0], TARGET, model), curves.area())

    def test_softmax_is_the_default(self, pixels):
        model = Linear(torch.ones(1, 5, 7))
        curve = Deletion(step=35).curves(pixels, pixels[:, 0], TARGET, model)
        np.testing.assert_allclose(curve.scores[0], [1 / (1 + np.exp(-float(pixels.sum()))), 0.5], rtol=1e-6)

    def test_area_of_a_uniform_image(self):
        # The score falls on a straight line from 1 to 0: half of the square, whatever the map.
        images, maps = torch.ones(1, 1, 8, 8), np.random.default_rng(0).random((1, 8, 8))
        model = Linear(torch.full((1, 8, 8), 1 / 64))
        for step in (None, 1, 5, 64, 1000):
            assert Deletion(step=step, score=raw)(images, maps, TARGET, model) == pytest.approx(0.5, abs=1e-6)
            assert Insertion(step=step, score=raw, baseline=zeros)(images, maps, TARGET, model) == pytest.approx(
                0.5, 1e-6
            )

    def test_one_decisive_pixel(self):
        # Found first, its removal leaves half a step of 1/4; found last, it lasts until the last step is half over.
        images = torch.zeros(1, 1, 2, 2)
        images[0, 0, 1, 1] = 1
        right = np.array([[[0, 1], [2, 3]]])
        metric, model = Deletion(step=1, score=raw), Linear(torch.ones(1, 2, 2))
        assert metric(images, right, TARGET, model) == pytest.approx(1 / 8)
        assert metric(images, -right, TARGET, model) == pytest.approx(7 / 8)

    def test_ties_go_row_by_row(self):
        images = torch.arange(4.0).reshape(1, 1, 2, 2)
        metric = Deletion(step=1, score=raw)
        curve = metric.curves(images, np.zeros((1, 2, 2)), TARGET, Linear(torch.ones(1, 2, 2)))
        np.testing.assert_array_equal(curve.scores, [[6, 6, 5, 3, 0]])

    def test_a_shorter_last_step(self):
        curve = Deletion(step=3, score=raw).curves(
            torch.ones(1, 1, 2, 4), np.zeros((1, 2, 4)), TARGET, Linear(torch.ones(1, 2, 4))
        )
        np.testing.assert_array_equal(curve.shares, [0, 3 / 8, 6 / 8, 1])
        np.testing.assert_array_equal(curve.scores, [[8, 5, 2, 0]])


class TestSteps:
    @pytest.mark.parametrize(("size", "points"), [((224, 224), 29), ((56, 112), 29), ((5, 7), 19), ((2, 2), 5)])
    def test_a_28th_of_the_pixels(self, size, points):
        model = Linear(torch.ones(1, 1, 1))
        curve = Deletion(score=raw).curves(torch.ones(1, 1, *size), np.zeros((1, *size)), TARGET, model)
        assert len(curve.shares) == points
        if size == (224, 224):
            assert curve.shares[1] * 224 * 224 == 224 * 8

    @pytest.mark.parametrize(("name", "value", "error"), [("step", 0, ValueError), ("step", 1.5, TypeError)])
    def test_invalid_arguments(self, name, value, error):
        with pytest.raises(error, match=name):
            Deletion(**{name: value})
        with pytest.raises(ValueError, match="batch_size"):
            Insertion(batch_size=0)


class TestBaselines:
    def test_insertion_begins_with_the_blurred_image(self):
        images = torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(blur(images), gaussian_blur(images, [11, 11], [5.0, 5.0]))
        model = conv_net()
        curve = Insertion().curves(images, np.zeros((1, 16, 20)), TARGET, model)
        ends = model(torch.cat([blur(images), images])).softmax(dim=1)[:, 0]
        np.testing.assert_allclose(curve.scores[0, [0, -1]], ends.detach().numpy(), rtol=1e-5)

    def test_tiny_images_need_another_one(self):
        model = Linear(torch.ones(1, 5, 5))
        with pytest.raises(ValueError, match="5x5 px are smaller than half of the blur's kernel of 11 px: pass"):
            Insertion()(torch.ones(1, 1, 5, 5), np.zeros((1, 5, 5)), TARGET, model)

    def test_own_baseline_must_fit(self):
        with pytest.raises(ValueError, match=r"the baseline must have the images' shape \(1, 1, 4, 4\), got \(4, 4\)"):
            Deletion(baseline=lambda images: torch.zeros(4, 4))(
                torch.ones(1, 1, 4, 4), np.zeros((1, 4, 4)), TARGET, Linear(torch.ones(1, 4, 4))
            )


class TestAgainstOthers:
    images = torch.randn(3, 3, 56, 60, generator=torch.Generator().manual_seed(2))
    maps = np.random.default_rng(2).random((3, 56, 60), dtype=np.float32)
    classes = (3, 1, 4)

    @property
    def targets(self):
        return [ClassifierOutputTarget(category) for category in self.classes]

    def literal(self, image, saliency_map, category, model, insertion):
        """Published procedure, one copy at a time."""
        order = sorted(range(saliency_map.size), key=lambda place: -saliency_map.flat[place])
        start, finish = (blur(image[None])[0], image) if insertion else (image, torch.zeros_like(image))
        copy, curve = start.clone().flatten(1), []
        for first in range(0, len(order) + 1, 120):
            with torch.no_grad():
                curve.append(float(model(copy.reshape(1, *image.shape)).softmax(dim=1)[0, category]))
            copy[:, order[first : first + 120]] = finish.flatten(1)[:, order[first : first + 120]]
        return sum((a + b) / 2 for a, b in pairwise(curve)) / (len(curve) - 1)

    @pytest.mark.parametrize("batch_size", [1, 7, 500])
    def test_literal_loop(self, batch_size):
        model = conv_net()
        curves = OverAll(batch_size=batch_size).curves(self.images, self.maps, self.targets, model)
        for insertion, curve in ((True, curves.insertion), (False, curves.deletion)):
            expected = [
                self.literal(image, saliency_map, category, model, insertion)
                for image, saliency_map, category in zip(self.images, self.maps, self.classes, strict=True)
            ]
            np.testing.assert_allclose(curve.area(), expected, rtol=1e-5)

    def test_single_metrics_and_over_all_agree(self):
        model = conv_net()
        arguments = (self.images, self.maps, self.targets, model)
        difference = Insertion()(*arguments) - Deletion()(*arguments)
        np.testing.assert_allclose(OverAll()(*arguments), difference, rtol=1e-6)

    @pytest.mark.parametrize("tied", [False, True])
    def test_torchcam(self, tied):
        metrics = pytest.importorskip("torchcam.metrics")
        maps = np.round(self.maps, 1) if tied else self.maps

        class GivenMaps:
            """What the metric needs of an extractor."""

            def __init__(self, model):
                self.model = model

            def __call__(self, class_idx=None, scores=None):
                return [torch.from_numpy(maps)]

            def fuse_cams(self, cams):
                return cams[0]

            def _hooks_off(self):
                return nullcontext()

        model = conv_net()
        expected = {}
        for name, baseline in (("deletion", None), ("insertion", blur)):
            oracle = metrics.DeletionInsertionMetric(
                GivenMaps(model), lambda logits: logits.softmax(dim=-1), steps=28, baseline=baseline
            )
            oracle.update(self.images, list(self.classes))
            expected[name] = oracle.summary()[f"{name}_auc"]
        curves = OverAll().curves(self.images, maps, self.targets, model)
        assert curves.deletion.area().mean() == pytest.approx(expected["deletion"], rel=1e-5)
        assert curves.insertion.area().mean() == pytest.approx(expected["insertion"], rel=1e-5)


def test_over_all_scores_the_original_image_once():
    calls = []

    class Counting(Linear):
        def forward(self, images):
            calls.append(len(images))
            return super().forward(images)

    OverAll(step=1)(torch.ones(1, 1, 6, 6), np.zeros((1, 6, 6)), TARGET, Counting(torch.ones(1, 6, 6)))
    assert sum(calls) == 37 + 36


def test_areas():
    curve = Curve(np.array([0, 0.5, 1]), np.array([[1, 1, 0], [0, 1, 1]]))
    np.testing.assert_array_equal(curve.area(), [0.75, 0.75])
    np.testing.assert_array_equal(FidelityCurves(curve, curve).area(), [0, 0])
