r"""Similarity of two maps: structural similarity and rank correlation.

$$\mathrm{SSIM}(a, b) = \mathrm{mean}\;
\frac{(2 \mu_a \mu_b + C_1)(2 \sigma_{ab} + C_2)}{(\mu_a^2 + \mu_b^2 + C_1)(\sigma_a^2 + \sigma_b^2 + C_2)}$$

where means, variances and the covariance are weighted by a Gaussian window of 11 x 11 pixels and sigma 1.5,
$C_1 = 0.01^2$ and $C_2 = 0.03^2$ for values in [0, 1].

Paper: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from holistic_cam_plugin.metrics.inputs import check_maps, to_array

__all__ = ["Similarity", "similarity"]

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


class Similarity(NamedTuple):
    """Similarity of two maps.

    Attributes:
        ssim: structural similarity, at most 1; 1 for equal maps only.
        spearman: Spearman's rank correlation, in [-1, 1]; NaN if a map is constant.

    Example:
        >>> Similarity(ssim=1.0, spearman=0.5).spearman
        0.5
    """

    ssim: float
    spearman: float


def similarity(map_a: Any, map_b: Any) -> Similarity:
    """Compute the structural similarity and the rank correlation of two maps.

    Args:
        map_a, map_b: `(H, W)`, in [0, 1], at least 11 pixels per side.

    Raises:
        TypeError, ValueError: the sizes differ or are too small, or a map is not finite or not in [0, 1].

    Example:
        >>> cam = np.linspace(0, 1, 256).reshape(16, 16)
        >>> round(similarity(cam, cam**2).spearman, 3)
        1.0
    """
    a, b = (_check_map(saliency_map) for saliency_map in (map_a, map_b))
    if a.shape != b.shape:
        raise ValueError(f"maps must have the same size, got {a.shape} and {b.shape}")
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    spearman = np.nan if constant else float(spearmanr(a, b, axis=None).statistic)
    return Similarity(_ssim(a, b), spearman)


def _check_map(saliency_map: Any) -> NDArray[np.float64]:
    array = np.asarray(check_maps(to_array(saliency_map)[None])[0], dtype=np.float64)
    if min(array.shape) < WINDOW:
        raise ValueError(f"maps must be at least {WINDOW} px per side, got {array.shape}")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"maps must lie in [0, 1], got values from {array.min():g} to {array.max():g}")
    return array


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    variances = _window_mean(a * a) - mean_a**2 + _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variances + C2)).mean())


def _window_mean(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean under the window, at the positions where the whole window fits."""
    margin = WINDOW // 2
    smooth = cv2.GaussianBlur(array, (WINDOW, WINDOW), SIGMA)
    return np.asarray(smooth[margin:-margin, margin:-margin], dtype=np.float64)
