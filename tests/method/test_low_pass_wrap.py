from __future__ import annotations

import cv2
import numpy as np
import pytest

from holistic_cam_plugin import (
    denoising_mask,
    fundamental_scale_denoising,
    kernel_size,
    low_pass_wrap,
    min_max_normalize,
)
from holistic_cam_plugin.method.low_pass_wrap import LARGEST_KERNEL
from tests.method.hills import hill, literal


@pytest.mark.parametrize(
    ("side", "blur_size", "ksize"),
    [(224, 51, 91), (112, 25, 45), (448, 103, 183), (1200, 273, 487), (32, 7, 13), (8, 3, 3), (1, 3, 3)],
)
def test_kernels_grow_with_the_shorter_side(side, blur_size, ksize):
    assert (kernel_size(side, 51), kernel_size(side, 91)) == (blur_size, ksize)


def test_kernels_are_the_nearest_odd_number():
    for side in range(14, 1400):
        exact = side * 91 / 224
        size = kernel_size(side, 91)
        assert size % 2 == 1
        assert abs(size - exact) <= 1 or size == 3


@pytest.mark.parametrize("shape", [(224, 224), (112, 112), (64, 96), (97, 41)])
def test_the_default_kernels_are_proportional(shape):
    base = hill(*shape)
    expected = literal(base, kernel_size(min(shape), 51), kernel_size(min(shape), 91))
    wrap = low_pass_wrap(base)
    assert wrap.dtype == np.float32
    assert wrap.shape == shape
    np.testing.assert_allclose(wrap, expected, atol=1e-4)


@pytest.mark.parametrize(("blur_size", "ksize"), [(3, 5), (1, 1), (21, None), (None, 21), (63, 131)])
def test_explicit_kernels_are_pixels_of_the_map(blur_size, ksize):
    base = hill(64, 80)
    expected = literal(base, blur_size or kernel_size(64, 51), ksize or kernel_size(64, 91))
    np.testing.assert_allclose(low_pass_wrap(base, blur_size, ksize), expected, atol=1e-4)


def test_everything_above_the_midpoint_counts_the_same():
    base = hill(64, 64)
    middle = (base.max() + base.min()) / 2
    higher = np.where(base > middle, middle + (base - middle) * 0.3, base).astype(np.float32)
    higher[np.unravel_index(base.argmax(), base.shape)] = base.max()  # same midpoint, another hill
    assert np.array_equal(low_pass_wrap(base), low_pass_wrap(higher))
    assert low_pass_wrap(base).max() <= middle


@pytest.mark.parametrize("unit", [1e-20, 1e-6, 1e6])
def test_the_wrap_is_in_the_maps_own_units(unit):
    np.testing.assert_allclose(low_pass_wrap(hill(64, 64, unit=unit)) / unit, low_pass_wrap(hill(64, 64)), rtol=2e-3)


def test_all_256_levels_serve_the_cut_map(monkeypatch):
    seen = []
    monkeypatch.setattr(cv2, "medianBlur", lambda levels, size: seen.append(levels) or levels)
    low_pass_wrap(hill(64, 64))
    assert (seen[0].dtype, seen[0].min(), seen[0].max()) == (np.uint8, 0, 255)


def test_the_wrap_is_never_below_the_maps_minimum():
    # The box filter's running sums leave flat regions a rounding error above or below their value.
    for seed in range(20):
        low, step = np.random.default_rng(seed).random(2, dtype=np.float32)
        base = np.full((64, 96), low)
        base[10:30, 20:40] += step
        assert low_pass_wrap(base).min() >= low


def test_a_constant_map_is_its_own_wrap():
    assert np.array_equal(low_pass_wrap(np.full((40, 40), 2.5, np.float32)), np.full((40, 40), 2.5, np.float32))


@pytest.mark.parametrize("shape", [(1200, 1300), (1400, 1150)])
def test_maps_above_1121_px_never_reach_opencvs_limit(monkeypatch, shape):
    sizes = []
    median = cv2.medianBlur
    monkeypatch.setattr(cv2, "medianBlur", lambda levels, size: sizes.append(size) or median(levels, size))
    wrap = low_pass_wrap(hill(*shape))
    assert sizes == [LARGEST_KERNEL]
    assert wrap.shape == shape
    # The same hill on a map of a tenth of the size is the same low-pass signal.
    small = low_pass_wrap(hill(shape[0] // 10, shape[1] // 10))
    np.testing.assert_allclose(cv2.resize(wrap, small.shape[::-1], interpolation=cv2.INTER_AREA), small, atol=0.02)


def test_an_explicit_box_keeps_its_size_on_a_large_map():
    base = hill(1200, 1200)
    rough, smooth = low_pass_wrap(base, ksize=1), low_pass_wrap(base, ksize=201)
    np.testing.assert_allclose(cv2.blur(rough, (201, 201)), smooth, atol=5e-3)


def test_an_explicit_median_is_not_shrunk_on_a_large_map():
    base = hill(1200, 1200)
    expected = low_pass_wrap(base, blur_size=3, ksize=5)
    np.testing.assert_allclose(expected, np.minimum(base, (base.max() + base.min()) / 2), atol=5e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 5)])
def test_kernels_larger_than_the_map_are_no_problem(shape):
    base = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert np.isfinite(low_pass_wrap(base, 255, 255)).all()


@pytest.mark.parametrize(("name", "largest"), [("blur_size", 255), ("ksize", 32767)])
def test_kernels_out_of_range_are_refused(name, largest):
    low_pass_wrap(hill(12, 12), **{name: largest})
    for size in (50, largest + 2, 0, -3):
        with pytest.raises(ValueError, match=f"{name} must be odd and from 1 to {largest} .* map.*, got {size}"):
            low_pass_wrap(hill(12, 12), **{name: size})


def test_the_box_may_be_larger_than_the_median():
    base = hill(700, 640)
    np.testing.assert_array_equal(low_pass_wrap(base, ksize=kernel_size(640, 91)), low_pass_wrap(base))
    assert kernel_size(640, 91) > LARGEST_KERNEL


def test_numpys_integers_are_kernel_sizes():
    base = hill(64, 80)
    expected = low_pass_wrap(base, 11, 21)
    np.testing.assert_array_equal(low_pass_wrap(base, np.int64(11), np.uint8(21)), expected)


@pytest.mark.parametrize("name", ["blur_size", "ksize"])
@pytest.mark.parametrize(
    ("size", "error", "match"),
    [
        (True, TypeError, "must be an odd integer or None, got True"),
        (51.0, TypeError, "must be an odd integer or None, got 51.0"),
    ],
)
def test_kernels_that_are_no_integers_are_refused(name, size, error, match):
    with pytest.raises(error, match=f"{name} {match}"):
        low_pass_wrap(hill(64, 64), **{name: size})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value):
    base = hill(64, 64)
    base[3, 4] = value
    with pytest.raises(ValueError, match="base_map holds NaN or infinite values"):
        low_pass_wrap(base)


@pytest.mark.parametrize("unit", [1e-43, 1e-40, 1e-38, 1e-36, 1e-30, 1e30, 1e38])
@pytest.mark.parametrize("shape", [(64, 64), (2, 32, 40), (1200, 1130)])
def test_no_unit_is_too_small_or_too_large(unit, shape):
    base = np.broadcast_to(hill(*shape[-2:]), shape) / 2  # below 1: 1e38 has room
    in_unit = (base.astype(np.float64) * unit).astype(np.float32)
    wrap = low_pass_wrap(in_unit)
    assert wrap.dtype == np.float32
    step = 1.4e-45  # of the smallest numbers
    np.testing.assert_allclose(wrap.astype(np.float64), low_pass_wrap(base) * unit, rtol=0.01, atol=2 * step)
    mask, expected = denoising_mask(in_unit), low_pass_wrap(base)
    np.testing.assert_allclose(mask / mask.max(), expected / expected.max(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("unit", [1e-320, 1e-300, 1e300, 1e308])
def test_double_precision_keeps_its_range(unit):
    base = (hill(64, 64) / 2).astype(np.float64)
    wrap = low_pass_wrap(base * unit)
    assert wrap.dtype == np.float64
    np.testing.assert_allclose(wrap / unit, low_pass_wrap(base), rtol=5e-3)
    denoised = fundamental_scale_denoising(base * unit, base * unit)
    expected = fundamental_scale_denoising(base, base)
    np.testing.assert_allclose(min_max_normalize(denoised), min_max_normalize(expected), atol=0.01)


def test_a_power_of_two_is_exact():
    base, primary = hill(64, 64), hill(64, 64, 0.05)
    for unit in (2.0**-60, 2.0**60):
        in_unit = (base * unit).astype(np.float32)
        assert np.array_equal(low_pass_wrap(in_unit), low_pass_wrap(base) * np.float32(unit))
        assert np.array_equal(
            fundamental_scale_denoising(primary, in_unit), fundamental_scale_denoising(primary, base) * unit
        )


def test_the_largest_number_of_all_is_its_own_wrap():
    base = np.full((8, 8), np.finfo(np.float64).max)
    assert np.array_equal(low_pass_wrap(base), base)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_an_empty_map_is_refused(shape):
    with pytest.raises(ValueError, match="base_map must be one map"):
        low_pass_wrap(np.zeros(shape, np.float32))


def test_a_stack_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"one map, \(H, W\) or \(D, H, W\), got shape \(1, 2, 8, 8\)"):
        low_pass_wrap(np.zeros((1, 2, 8, 8), np.float32))


@pytest.mark.parametrize("shape", [(3, 64, 80), (2, 1200, 1130)])
def test_a_volume_is_filtered_slice_by_slice_in_its_own_units(shape):
    slices = [hill(*shape[1:], unit=unit) for unit in (1.0, 0.3, 0.01)[: shape[0]]]
    volume = np.stack(slices)
    wrap = low_pass_wrap(volume)
    assert wrap.shape == shape
    low, high = volume.min(), volume.max()
    for one, own in zip(slices, wrap, strict=True):
        corner = np.array([low, high], np.float32)  # two pixels that give the slice the volume's bounds
        bounded = np.concatenate([one.ravel()[:-2], corner]).reshape(one.shape)
        np.testing.assert_allclose(own, low_pass_wrap(bounded), atol=0.01)
    assert wrap[1].max() <= slices[1].max() * 1.01


def test_a_volume_of_one_slice_is_its_slice():
    base = hill(64, 80)
    assert np.array_equal(low_pass_wrap(base[None])[0], low_pass_wrap(base))
    denoised = fundamental_scale_denoising(base[None], base[None])
    assert np.array_equal(denoised[0], fundamental_scale_denoising(base, base))
