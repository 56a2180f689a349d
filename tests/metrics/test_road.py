"""ROAD: removed shares, closed forms, agreement with pytorch-grad-cam, and the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import RelativeROAD, ROADScores, SeededROADCombined

TARGET = [ClassifierOutputTarget(0)]
PERCENT = (20, 40, 60, 80)


class Recorder(nn.Module):
    """Remembers the images it sees; the score is one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += list(images)
        return images[:, 0, 5, 5, None]


def raw(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 20, 30, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(3).random((2, 20, 30), dtype=np.float32)


def spike() -> torch.Tensor:
    image = torch.zeros(1, 1, 10, 10)
    image[0, 0, 5, 5] = 1
    return image


class TestSharesRemoved:
    @pytest.mark.parametrize("plateaus", ["none", "zeros", "constant"])
    def test_counted(self, images, maps, plateaus):
        if plateaus == "zeros":
            maps = np.where(maps > 0.96, maps, 0)
        elif plateaus == "constant":
            maps = np.zeros_like(maps)
        model = Recorder()
        RelativeROAD(PERCENT, score=raw)(images, maps, TARGET * 2, model)
        for image, saliency_map, seen in zip(images, maps, (model.seen[:9], model.seen[9:]), strict=True):
            torch.testing.assert_close(seen[0], image)
            order = np.argsort(-saliency_map.ravel(), kind="stable")
            for number, percent in enumerate(PERCENT):
                least, most = (
                    np.flatnonzero((copy != image).any(dim=0)) for copy in (seen[1 + number], seen[5 + number])
                )
                count = 600 * percent // 100
                assert abs(len(least) - count) <= 1
                assert abs(len(most) - count) <= 1
                assert set(most) == set(order[: len(most)])
                assert set(least) == set(order[len(order) - len(least) :])

    def test_road_combined_removes_whole_plateaus(self, images, maps):
        # The reason for breaking ties: nothing of the image is left at the percentiles 20, 40, 60 and 80.
        model = Recorder()
        sparse = np.where(maps > 0.96, maps, 0)[:1]
        with np.errstate(all="ignore"):
            ROADCombined(list(PERCENT))(images[:1], sparse, TARGET, model)
        removed = [int((copy != images[0]).any(dim=0).sum()) for copy in model.seen]
        assert removed[9::2] == [600] * 4  # original and imputed copies take turns; least relevant first comes first

    def test_an_image_of_which_everything_is_removed_scores_nan(self, images, maps):
        model = conv_net()
        flat = np.stack([np.where(maps[0] > 0.96, maps[0], 0), maps[1]])
        with pytest.warns(UserWarning, match=r"image \[0\] scores NaN: .* removes all pixels; use RelativeROAD"):
            figures = SeededROADCombined()(images, flat, TARGET * 2, model)
        assert np.isnan(figures[0])
        np.testing.assert_array_equal(figures[1:], SeededROADCombined()(images[1:], maps[1:], TARGET, model))
        with pytest.warns(UserWarning, match=r"image \[0\]"):
            SeededROADCombined([90])(images[:1], 1 - flat[:1], TARGET, model)


class TestClosedForms:
    def test_uniform_image(self, maps):
        # Imputation without noise reconstructs the removed pixels.
        images = torch.full((2, 3, 20, 30), 0.7)
        scores = RelativeROAD(noise=0).scores(images, maps, TARGET * 2, conv_net())
        np.testing.assert_allclose(scores.relative(), 0, atol=1e-5)
        np.testing.assert_allclose(scores.lerf, np.repeat(scores.original[:, None], 4, axis=1), rtol=1e-5)

    def test_one_decisive_pixel(self):
        # Removed among the most relevant it is imputed from zeros; removed among the least relevant it stays.
        image = spike()
        for sign in (1, -1):
            metric = RelativeROAD(noise=0, score=raw)
            scores = metric.scores(image, sign * (image[:, 0] + torch.rand(1, 10, 10) / 2), TARGET, Recorder())
            right, wrong = (scores.lerf, scores.morf)[::sign]
            np.testing.assert_allclose(right, 1, atol=1e-6)
            np.testing.assert_allclose(wrong, 0, atol=1e-6)
            np.testing.assert_allclose(scores.relative(), sign, atol=1e-6)
            np.testing.assert_allclose(scores.absolute(), sign / 2, atol=1e-6)

    def test_noise(self):
        metric = RelativeROAD([50], noise=0.1, score=raw)
        model = Recorder()
        metric(torch.zeros(1, 1, 60, 60), np.random.default_rng(0).random((1, 60, 60)), TARGET, model)
        imputed = model.seen[1]
        assert float(imputed[imputed != 0].std()) == pytest.approx(0.1, rel=0.1)

    def test_forms(self):
        scores = ROADScores(np.array([0.5, 0]), np.array([[0.4, 0.2], [1, 1]]), np.array([[0.1, 0.1], [0, 0]]))
        np.testing.assert_allclose(scores.relative(), [0.4, np.nan])
        np.testing.assert_allclose(scores.absolute(), [0.1, 0.5])


class TestLibrary:
    def test_seeded_form_equals_road_combined(self, images, maps):
        model, targets = conv_net(), [ClassifierOutputTarget(2), ClassifierOutputTarget(0)]
        expected = []
        for image, saliency_map, target in zip(images, maps, targets, strict=True):
            torch.manual_seed(7)
            combined = ROADCombined(percentiles=[20, 40, 60, 80])
            softmax_target = [ClassifierOutputSoftmaxTarget(target.category)]
            expected += combined(image[None], saliency_map[None], softmax_target, model).tolist()
        np.testing.assert_allclose(SeededROADCombined(seed=7)(images, maps, targets, model), expected, rtol=1e-6)

    def test_absolute_form_agrees_without_ties(self, images, maps):
        model, targets = conv_net(), TARGET * 2
        absolute = RelativeROAD().scores(images, maps, targets, model).absolute()
        np.testing.assert_allclose(absolute, SeededROADCombined()(images, maps, targets, model), atol=2e-4)


class TestSeed:
    @pytest.mark.parametrize("metric", [RelativeROAD, SeededROADCombined])
    def test_same_seed_same_score(self, metric, images, maps):
        model = conv_net()
        first = metric(seed=1)(images, maps, TARGET * 2, model)
        torch.manual_seed(99)
        np.testing.assert_array_equal(metric(seed=1)(images, maps, TARGET * 2, model), first)
        assert (metric(seed=2)(images, maps, TARGET * 2, model) != first).all()

    @pytest.mark.parametrize("metric", [RelativeROAD, SeededROADCombined])
    def test_random_state_of_the_user(self, metric, images, maps):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        metric()(images, maps, TARGET * 2, conv_net_without_seed())
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)

    def test_batch_size_does_not_matter(self, images, maps):
        model = conv_net()
        single = RelativeROAD(batch_size=1)(images, maps, TARGET * 2, model)
        np.testing.assert_allclose(RelativeROAD(batch_size=50)(images, maps, TARGET * 2, model), single, rtol=1e-4)


def conv_net_without_seed() -> nn.Module:
    with torch.random.fork_rng():
        return conv_net()


@pytest.mark.parametrize("metric", [RelativeROAD, SeededROADCombined])
@pytest.mark.parametrize("percent", [[], [0], [100], [20, -1], [float("nan")]])
def test_percentages_out_of_range(metric, percent):
    with pytest.raises(ValueError, match=r"percent.* must be a list of values above 0 and below 100"):
        metric(percent)


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match="batch_size"):
        RelativeROAD(batch_size=0)


def test_a_model_that_changes_its_input_in_place(net, images):
    class Doubled(torch.nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.net, self.in_place = net, in_place

        def forward(self, x):
            return self.net(x.mul_(2) if self.in_place else x * 2)

    before, maps = images.clone(), np.random.default_rng(0).random((len(images), *images.shape[-2:]))
    targets = [ClassifierOutputTarget(1)] * len(images)
    scores = SeededROADCombined([20, 50])(images, maps, targets, Doubled(True))
    assert torch.equal(images, before)
    np.testing.assert_array_equal(scores, SeededROADCombined([20, 50])(images, maps, targets, Doubled(False)))
