"""The mask on the fused map: its units, and the maps that it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from holistic_cam_plugin import fundamental_scale_denoising, kernel_size
from tests.method.hills import hill, literal


@pytest.mark.parametrize("shape", [(64, 1), (64,), (32, 64), (1, 64, 64), ()])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"base_map must have the shape of primary_map, \(64, 64\)") as error:
        fundamental_scale_denoising(hill(64, 64), np.ones(shape, np.float32))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_primary_map_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="primary_map holds NaN or infinite values"):
        fundamental_scale_denoising(np.full((8, 8), value, np.float32), hill(8, 8))


def test_denoising_multiplies_the_map_by_the_wrap():
    primary, base = hill(64, 64, 0.05), hill(64, 64)
    denoised = fundamental_scale_denoising(primary, base, 11, 21)
    np.testing.assert_allclose(denoised, primary.astype(np.float64) * literal(base, 11, 21), atol=1e-4)


def test_the_product_of_two_tiny_maps_does_not_vanish():
    denoised = fundamental_scale_denoising(hill(64, 64, unit=1e-30), hill(64, 64, unit=1e-30))
    assert denoised.dtype == np.float64
    assert denoised.max() > 1e-61


def test_a_tiny_hot_spot_falls_back_to_the_unmasked_map():
    base = np.zeros((64, 64), np.float32)
    base[30:33, 30:33] = 1  # far below half of the median's window of 15 x 15
    primary = hill(64, 64)
    with pytest.warns(UserWarning, match="the mask is zero everywhere: the hot spot .* smaller blur_size"):
        denoised = fundamental_scale_denoising(primary, base)
    assert np.array_equal(denoised, primary)
    assert not np.array_equal(fundamental_scale_denoising(primary, base, blur_size=3), primary)


def test_an_empty_base_map_masks_everything_without_a_warning():
    assert not fundamental_scale_denoising(hill(64, 64), np.zeros((64, 64), np.float32)).any()


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e6])
def test_the_mask_in_any_unit(unit):
    primary, base = hill(64, 64, sigma=0.1), hill(64, 64, unit=unit)
    denoised = fundamental_scale_denoising(primary, base)
    expected = primary * literal(base, kernel_size(64, 51), kernel_size(64, 91))
    np.testing.assert_allclose(denoised / denoised.max(), expected / expected.max(), atol=1e-3)
