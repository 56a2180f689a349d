r"""How alike two maps are: structural similarity and rank correlation.

$$\mathrm{SSIM}(a, b) = \mathrm{mean}\;
\frac{(2 \mu_a \mu_b + C_1)(2 \sigma_{ab} + C_2)}{(\mu_a^2 + \mu_b^2 + C_1)(\sigma_a^2 + \sigma_b^2 + C_2)}$$

with means, variances and covariance under a Gaussian window of 11 x 11 pixels and sigma 1.5, $C_1 = 0.01^2$ and
$C_2 = 0.03^2$ for values in [0, 1].

Paper: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from holistic_cam_plugin.metrics.scoring import as_array, check_maps

__all__ = ["Similarity", "similarity"]

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


class Similarity(NamedTuple):
    """How alike two maps are.

    Attributes:
        ssim: structural similarity, at most 1, and 1 for equal maps alone.
        spearman: Spearman's rank correlation, in [-1, 1]; NaN where a map is constant and ranks nothing.
    """

    ssim: float
    spearman: float


def similarity(map_a: Any, map_b: Any) -> Similarity:
    """The similarity of two maps.

    Args:
        map_a, map_b: `(H, W)`, values in [0, 1], at least 11 pixels a side.

    Raises:
        ValueError: maps of different or too small sizes, not finite or outside of [0, 1].
    """
    a, b = (_checked(saliency_map) for saliency_map in (map_a, map_b))
    if a.shape != b.shape:
        raise ValueError(f"maps of different sizes can't be compared: {a.shape} and {b.shape}")
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    spearman = np.nan if constant else float(spearmanr(a, b, axis=None).statistic)
    return Similarity(_ssim(a, b), spearman)


def _checked(saliency_map: Any) -> NDArray[np.float64]:
    array = np.asarray(check_maps(as_array(saliency_map)[None])[0], dtype=np.float64)
    if min(array.shape) < WINDOW:
        raise ValueError(f"maps must be at least {WINDOW} px a side, got {array.shape}")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"maps must lie in [0, 1], got values from {array.min():g} to {array.max():g}")
    return array


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    mean_a, mean_b = _windowed(a), _windowed(b)
    variances = _windowed(a * a) - mean_a**2 + _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variances + C2)).mean())


def _windowed(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean under the window wherever the window fits."""
    margin = WINDOW // 2
    smooth = cv2.GaussianBlur(array, (WINDOW, WINDOW), SIGMA)
    return np.asarray(smooth[margin:-margin, margin:-margin], dtype=np.float64)
