r"""The result (eq. 17): every map scaled to [0, 1] on its own."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

__all__ = ["min_max_normalize", "unit_exponents"]


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
    # Double precision: a range of 1e-30 on an offset of 1 is below what single precision holds.
    values = saliency_map.astype(np.float64)
    values = np.ldexp(values, -unit_exponents(values))  # not to overflow
    low, high = values.min(), values.max()
    return np.ascontiguousarray((values - low) / (high - low), dtype=np.float32)


def unit_exponents(maps: NDArray[np.floating], axis: int | tuple[int, ...] | None = None) -> NDArray[np.intc]:
    """The exponents of the powers of two by which maps are divided to have their largest magnitude in [1, 2).

    `np.ldexp(maps, -unit_exponents(maps))` loses nothing: it has the maps' digits in another unit, in which nothing
    overflows or vanishes.

    Args:
        maps: float32 or float64, finite.
        axis: over which the largest magnitude is taken; None: all of them.

    Returns:
        With these axes kept, of length 1. The exponent of zeros is without meaning.
    """
    peaks = np.abs(maps).max(axis=axis, keepdims=True)
    exponents: NDArray[np.intc] = np.frexp(peaks)[1] - 1
    return exponents
