"""SSIM and rank correlation against closed forms and a literal window."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from holistic_cam_plugin.metrics import similarity

RNG = np.random.default_rng(0)
A, B = RNG.random((13, 15)), RNG.random((13, 15))


def literal_ssim(a, b):
    """Wang et al., eq. 13, one window at a time."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (m[row : row + 11, column : column + 11] for m in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            top = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
            values.append(top / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)))
    return np.mean(values)


def test_equal_maps():
    assert similarity(A, A) == pytest.approx((1, 1))


@pytest.mark.parametrize(("a", "b"), [(A, B), (A, 1 - A), (A, A**3), (A, np.zeros_like(A))])
def test_ssim_against_a_literal_window(a, b):
    assert similarity(a, b).ssim == pytest.approx(literal_ssim(a, b), abs=1e-10)
    assert similarity(a, b).ssim == pytest.approx(similarity(b, a).ssim, abs=1e-12)


def test_constant_maps():
    # Only the first factor is left: means of 1 and 0, of 0.2 and 0.6.
    assert similarity(np.ones((11, 11)), np.zeros((11, 11))).ssim == pytest.approx(1e-4 / (1 + 1e-4))
    ssim, spearman = similarity(np.full((20, 20), 0.2), np.full((20, 20), 0.6))
    assert ssim == pytest.approx((0.24 + 1e-4) / (0.4 + 1e-4))
    assert np.isnan(spearman)
    assert np.isnan(similarity(A, np.zeros_like(A)).spearman)


def test_spearman_sees_the_order_alone():
    assert similarity(A, A**5).spearman == pytest.approx(1)
    assert similarity(A, 1 - A).spearman == pytest.approx(-1)
    a, b = np.round(A, 1), np.round((A + B) / 2, 1)  # ties share the mean rank
    expected = np.corrcoef(rankdata(a), rankdata(b))[0, 1]
    assert similarity(a, b).spearman == pytest.approx(expected)
    assert similarity(a.astype(np.float32), b.astype(np.float32)).spearman == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (A, B[:, :12], "must have the same size"),
        (A[:10], B[:10], "at least 11 px per side"),
        (A * 2, B, r"must lie in \[0, 1\]"),
        (A - 1, B, r"must lie in \[0, 1\]"),
        (A * np.nan, B, "NaN"),
        (A[None], B[None], "must be a batch"),
    ],
)
def test_invalid_arguments(a, b, message):
    with pytest.raises(ValueError, match=message):
        similarity(a, b)
