r"""The result (eq. 17): every map scaled to [0, 1] on its own."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

__all__ = ["min_max_normalize"]


def min_max_normalize(saliency_map: NDArray[np.floating]) -> NDArray[np.float32]:
    """A map shifted and scaled to [0, 1] (paper, eq. 17).

    Args:
        saliency_map: `(H, W)`, any floating dtype, finite, in any unit (1e-30 is as good as 1).

    Returns:
        `(H, W)`, float32, C-contiguous. A constant map becomes zero, with a warning, never NaN.
    """
    low, high = saliency_map.min(), saliency_map.max()
    if not high > low:
        warnings.warn(
            "a saliency map is constant and comes out as zero: no evidence for this target in this layer",
            stacklevel=2,
        )
        return np.zeros(saliency_map.shape, dtype=np.float32)
    # Double precision: the product of two maps of 1e-20 is below what single precision holds.
    scaled = (saliency_map.astype(np.float64) - low) / (np.float64(high) - low)
    return np.ascontiguousarray(scaled, dtype=np.float32)
