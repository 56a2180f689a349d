"""Edge cases: a clear error before any forward pass, or the right score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import (
    AveragePrecision,
    BestIoU,
    CenteredGaussian,
    Deletion,
    DiFull,
    EfficientMPRT,
    EnergyPointingGame,
    Insertion,
    Lucidity,
    OverAll,
    RelativeROAD,
    SeededROADCombined,
    cascading_randomization,
    efficient_mprt,
    histogram_entropy,
    independent_randomization,
    rank_pixels,
    rasterize_region,
    similarity,
    tied_pixels,
)

BOXES = [(0, 0, 8, 8)] * 2
FIDELITY = [Deletion(), Insertion(), OverAll(), RelativeROAD([50]), SeededROADCombined([50])]
REGIONS = [EnergyPointingGame(BOXES), Lucidity(BOXES), AveragePrecision(BOXES), BestIoU(BOXES)]
MPRT = EfficientMPRT(lambda model: lambda images, targets: np.array(MAPS))
METRICS = [*FIDELITY, *REGIONS, MPRT]

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MAPS = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
TARGETS = [ClassifierOutputTarget(0), ClassifierOutputTarget(1)]

every = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
fidelity = pytest.mark.parametrize("metric", FIDELITY, ids=lambda metric: type(metric).__name__)


class Pooled(nn.Module):
    """Pooled channels as class scores; counts its passes."""

    def __init__(self, factor: float = 1.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(factor, dtype=dtype))
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if images.dtype != self.scale.dtype:
            raise RuntimeError("images of another dtype")
        return images.mean(dim=(2, 3)) * self.scale


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_rejected_before_any_pass(metric, value):
    images, model = IMAGES.clone(), Pooled()
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match=r"input_tensor contains NaN or infinite values in image \[1\]"):
        metric(images, MAPS, TARGETS, model)
    assert model.passes == 0


@every
@pytest.mark.parametrize("unit", [1e-320, 1e-40, 1e-30, 1e30, 1e38, 1e308])
def test_the_unit_of_the_maps_does_not_matter(metric, unit):
    maps = np.rint(MAPS * 255).astype(np.float64) / 256  # digits that denormal numbers have too
    np.testing.assert_allclose(
        metric(IMAGES, maps * unit, TARGETS, Pooled()), metric(IMAGES, maps, TARGETS, Pooled()), atol=0.01
    )


@every
def test_half_precision_maps_are_maps(metric):
    for dtype in (torch.bfloat16, torch.float16):
        maps = torch.from_numpy(MAPS).to(dtype)
        expected = metric(IMAGES, maps.float().numpy(), TARGETS, Pooled())
        np.testing.assert_array_equal(metric(IMAGES, maps, TARGETS, Pooled()), expected)


@fidelity
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_are_scored_in_their_own_precision(metric, dtype):
    figures = metric(IMAGES.to(dtype), MAPS, TARGETS, Pooled(dtype=dtype))
    expected = metric(IMAGES, MAPS, TARGETS, Pooled())
    np.testing.assert_allclose(figures, expected, atol=0.02)


@every
def test_whole_numbers_are_maps(metric):
    maps = np.rint(MAPS * 255).astype(np.uint8)
    expected = metric(IMAGES, maps.astype(np.float32), TARGETS, Pooled())
    np.testing.assert_array_equal(metric(IMAGES, maps, TARGETS, Pooled()), expected)
    np.testing.assert_array_equal(metric(IMAGES, torch.from_numpy(maps), TARGETS, Pooled()), expected)


@every
@pytest.mark.parametrize("maps", [MAPS * 1j, np.full(MAPS.shape, "a"), MAPS.astype(object)])
def test_maps_that_are_no_real_numbers(metric, maps):
    with pytest.raises(TypeError, match="cams must be real numbers, got dtype"):
        metric(IMAGES, maps, TARGETS, Pooled())


@fidelity
def test_targets_that_return_several_values(metric):
    with pytest.raises(ValueError, match=r"must return one value per image, as a tensor, got shape \(3,\)"):
        metric(IMAGES, MAPS, [lambda outputs: outputs] * 2, Pooled())


@fidelity
def test_a_model_that_returns_nan(metric):
    with pytest.raises(ValueError, match="a score is NaN: the model returned NaN"):
        metric(IMAGES, MAPS, TARGETS, Pooled(float("nan")))


@pytest.mark.parametrize("metric", [Deletion(), RelativeROAD([50]), SeededROADCombined([50])])
def test_structured_outputs_are_named(metric):
    class Tupled(Pooled):
        def forward(self, images):
            return (super().forward(images),)

    with pytest.raises(TypeError, match="the model returned a tuple"):
        metric(IMAGES, MAPS, TARGETS, Tupled())


def test_images_of_one_pixel():
    images, maps, model = IMAGES[..., :1, :1], MAPS[:, :1, :1], Pooled()
    for metric in (RelativeROAD(), SeededROADCombined()):
        with pytest.raises(ValueError, match="images of 1x1 px have none"):
            metric(images, maps, TARGETS, model)
    with pytest.raises(ValueError, match="smaller than half of the blur's kernel"):
        OverAll()(images, maps, TARGETS, model)
    assert model.passes == 0
    assert np.isfinite(Deletion()(images, maps, TARGETS, model)).all()
    for metric in (RelativeROAD(), SeededROADCombined()):
        assert np.isfinite(metric(IMAGES[..., :1, :2], MAPS[:, :1, :2], TARGETS, model)).all()


class TestParameters:
    @pytest.mark.parametrize("metric", [RelativeROAD, SeededROADCombined])
    @pytest.mark.parametrize("percent", [20, "20", None, [[20, 40]], ["20"], [True], [2j]])
    def test_percentages_are_a_list_of_numbers(self, metric, percent):
        with pytest.raises(TypeError, match=r"must be a list of percentages, such as \[20, 40\], got "):
            metric(percent)

    @pytest.mark.parametrize("noise", [float("nan"), float("inf"), -0.1, "0.1", None, True])
    def test_noise(self, noise):
        with pytest.raises(ValueError, match="noise must be a finite number of at least 0, got "):
            RelativeROAD(noise=noise)

    @pytest.mark.parametrize("seed", [1.5, "1", None, True])
    def test_seeds(self, seed):
        for make in (
            lambda: RelativeROAD(seed=seed),
            lambda: SeededROADCombined(seed=seed),
            lambda: EfficientMPRT(Pooled, seed=seed),
            lambda: next(cascading_randomization(Pooled(), seed=seed)),
            lambda: next(independent_randomization(Pooled(), seed=seed)),
        ):
            with pytest.raises(TypeError, match="seed must be an integer, got "):
                make()

    def test_numbers_of_numpy(self):
        pairs = [
            (RelativeROAD(np.array([20, 60]), noise=np.float32(0.5), seed=np.int64(3), batch_size=np.int32(2)),
             RelativeROAD([20, 60], noise=0.5, seed=3, batch_size=2)),
            (SeededROADCombined(np.array([20.0]), seed=np.int64(3)), SeededROADCombined([20], seed=3)),
            (Deletion(step=np.int64(9), batch_size=np.int64(3)), Deletion(step=9, batch_size=3)),
            (EnergyPointingGame(np.array(BOXES), np.int64(5)), EnergyPointingGame(BOXES, 5)),
            (Lucidity(BOXES, np.float32(0.5)), Lucidity(BOXES, 0.5)),
        ]  # fmt: skip
        for numpys, pythons in pairs:
            np.testing.assert_array_equal(
                numpys(IMAGES, MAPS, TARGETS, Pooled()), pythons(IMAGES, MAPS, TARGETS, Pooled())
            )
        np.testing.assert_array_equal(histogram_entropy(MAPS, np.int64(7)), histogram_entropy(MAPS, 7))
        np.testing.assert_array_equal(
            CenteredGaussian(Pooled(), sigma=np.float32(0.25))(IMAGES), CenteredGaussian(Pooled())(IMAGES)
        )
        assert DiFull(Pooled(), np.int64(2)).quarter == 2
        _, first = next(cascading_randomization(nn.Linear(2, 2), [""], seed=np.int64(5)))
        _, second = next(cascading_randomization(nn.Linear(2, 2), [""], seed=5))
        assert torch.equal(first.weight, second.weight)

    @pytest.mark.parametrize("quarter", [4, -1, 2.0, True, "1", None])
    def test_quarters(self, quarter):
        with pytest.raises(ValueError, match="quarter must be an integer from 0 to 3, got "):
            DiFull(Pooled(), quarter)

    def test_grids_without_images(self):
        with pytest.raises(ValueError, match=r"grids must be .* got shape \(0, 3, 8, 8\)"):
            DiFull(Pooled())(torch.zeros(0, 3, 8, 8))

    @pytest.mark.parametrize("share", [1, -0.1, float("nan"), "0.1", True])
    def test_shares_are_checked_at_once(self, share):
        with pytest.raises(ValueError, match="share must be at least 0 and below 1, got "):
            Lucidity(BOXES, share)

    def test_counts_are_checked_at_once(self):
        with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
            EnergyPointingGame(BOXES, 0)
        with pytest.raises(TypeError, match="top_k must be an integer"):
            EnergyPointingGame(BOXES, 2.5)

    @pytest.mark.parametrize("metric", [EnergyPointingGame, Lucidity, AveragePrecision, BestIoU])
    @pytest.mark.parametrize("regions", [None, 3, "box", iter(BOXES)])
    def test_regions_are_a_list(self, metric, regions):
        with pytest.raises(TypeError, match="regions must be a list, one per image, such as"):
            metric(regions)

    def test_a_string_is_not_a_list_of_layers(self):
        with pytest.raises(TypeError, match=r"layers must be a list of names, such as \['head'\]"):
            next(cascading_randomization(Pooled(), "head"))

    def test_cam_of_must_be_callable(self):
        with pytest.raises(TypeError, match="cam_of must be a function that builds a method for a model"):
            EfficientMPRT(3)

    @pytest.mark.parametrize("sigma", ["0.2", None, True])
    def test_sigma(self, sigma):
        with pytest.raises(ValueError, match="sigma must be a finite number above 0"):
            CenteredGaussian(Pooled(), sigma=sigma)


class TestRegions:
    def test_tensors_of_any_kind(self):
        expected = rasterize_region((1, 2, 5, 6), 8, 8)
        for region in (
            torch.tensor([1.0, 2, 5, 6], requires_grad=True),
            torch.tensor([1.0, 2, 5, 6], dtype=torch.bfloat16),
            torch.from_numpy(expected),
        ):
            np.testing.assert_array_equal(rasterize_region(region, 8, 8), expected)

    def test_boxes_that_are_no_real_numbers(self):
        with pytest.raises(TypeError, match="a region must be boxes"):
            rasterize_region([1j, 2, 3, 4], 8, 8)
        with pytest.raises(ValueError, match="a box must have x_min < x_max and y_min < y_max"):
            rasterize_region([float("nan"), 2, 3, 4], 8, 8)


class TestFunctions:
    @pytest.mark.parametrize("function", [rank_pixels, tied_pixels, histogram_entropy])
    @pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (4, 4), ()])
    def test_no_batch_of_maps(self, function, shape):
        with pytest.raises(ValueError, match=r"cams must be a batch \(B, H, W\) of maps"):
            function(np.zeros(shape))

    def test_complexity_in_any_unit_and_on_any_offset(self):
        whole = np.rint(MAPS * 200).astype(np.float64)
        expected = histogram_entropy(whole, 10)
        for maps in (whole * 1e-320, (whole - 100.0) * 1e306, 1 + whole * 2.0**-52):
            np.testing.assert_allclose(histogram_entropy(maps, 10), expected, atol=0.1)
        assert np.isfinite(efficient_mprt(whole * 1e300, whole)).all()

    def test_similarity_of_tensors_of_any_kind(self):
        tensor = torch.from_numpy(MAPS[0]).requires_grad_()
        assert similarity(tensor, MAPS[0]) == similarity(MAPS[0], MAPS[0])
        assert similarity(tensor.bfloat16(), MAPS[0]).ssim > 0.99
