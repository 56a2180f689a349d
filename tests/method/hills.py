"""Maps to mask, and the wrap spelt out."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter, uniform_filter


def hill(height: int, width: int, sigma: float = 0.2, unit: float = 1.0) -> np.ndarray:
    """A smooth hot spot off the centre, on a slope so that the minimum is not zero."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.float32((np.exp(-((y - 0.35) ** 2 + (x - 0.4) ** 2) / (2 * sigma**2)) + 0.1 + 0.2 * x) * unit)


def literal(base: np.ndarray, blur_size: int, ksize: int) -> np.ndarray:
    """Equations 13-15 with scipy's filters, no OpenCV: its borders are called nearest and mirror there."""
    base = base.astype(np.float64)
    low, middle = base.min(), (base.max() + base.min()) / 2
    levels = np.rint((np.minimum(base, middle) - low) / (middle - low) * 255).astype(np.uint8)
    median = low + median_filter(levels, blur_size, mode="nearest") / 255 * (middle - low)
    return uniform_filter(median, ksize, mode="mirror")
