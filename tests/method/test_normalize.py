from __future__ import annotations

import numpy as np
import pytest

from holistic_cam_plugin import min_max_normalize
from holistic_cam_plugin.method.normalize import unit_exponents


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_map_is_shifted_and_scaled(dtype):
    scaled = min_max_normalize(np.array([[2, 3], [4, 6]], dtype))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0, 0.25], [0.5, 1]], rtol=1e-7)


@pytest.mark.parametrize("unit", [1e-320, 1e-300, 1e-60, 1e-30, 1.0, 1e30, 1e308])
def test_the_unit_does_not_matter(unit):
    values = np.random.default_rng(0).random((5, 7))
    np.testing.assert_allclose(min_max_normalize(values * unit), min_max_normalize(values), rtol=1e-6, atol=1e-3)


def test_a_small_range_on_a_large_offset_spans_all_of_0_to_1():
    scaled = min_max_normalize(np.float32([[1000, 1000.001]]))
    assert (scaled.min(), scaled.max()) == (0, 1)


def test_a_range_that_the_dtype_cannot_hold():
    np.testing.assert_allclose(min_max_normalize(np.float16([[-60000, 0, 60000]])), [[0, 0.5, 1]])


def test_a_range_beyond_double_precision():
    np.testing.assert_allclose(min_max_normalize(np.float64([[-1.5e308, 0, 1.5e308]])), [[0, 0.5, 1]])


def test_unit_exponents_put_the_largest_magnitude_between_1_and_2():
    maps = np.float64([[[0.25, -0.75]], [[1, 0]], [[1e-320, 0]], [[-1.7e308, 1]], [[2, 1]]])
    exponents = unit_exponents(maps, axis=(1, 2))
    assert exponents.shape == (5, 1, 1)
    scaled = np.ldexp(maps, -exponents)
    peaks = np.abs(scaled).max(axis=(1, 2))
    assert ((peaks >= 1) & (peaks < 2)).all()
    assert np.array_equal(np.ldexp(scaled, exponents), maps)
    assert unit_exponents(np.float32([[8, 3]])).shape == (1, 1)
    assert not np.ldexp(np.zeros((2, 2)), -unit_exponents(np.zeros((2, 2)))).any()


def test_the_result_is_contiguous_and_the_input_untouched():
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    before = values.copy()
    assert min_max_normalize(values).flags.c_contiguous
    assert np.array_equal(values, before)


@pytest.mark.parametrize("value", [0, -3, 1e-30])
def test_a_constant_map_becomes_zero_with_a_warning(value):
    with pytest.warns(UserWarning, match="a saliency map is constant and becomes zero: this layer has no evidence"):
        scaled = min_max_normalize(np.full((3, 4), value, np.float64))
    assert scaled.dtype == np.float32
    assert np.array_equal(scaled, np.zeros((3, 4)))
