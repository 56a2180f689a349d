"""The result (eq. 17): every map is scaled to [0, 1]."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

__all__ = ["min_max_normalize", "unit_exponents"]


def min_max_normalize(saliency_map: NDArray[np.floating]) -> NDArray[np.float32]:
    """A map shifted and scaled to [0, 1] (paper, eq. 17).

    Args:
        saliency_map: `(H, W)`, any floating dtype, finite, in any unit.

    Returns:
        `(H, W)`, float32, C-contiguous. A constant map becomes zero, with a warning.

    Example:
        >>> min_max_normalize(np.array([[1.0, 2.0, 3.0]]))
        array([[0. , 0.5, 1. ]], dtype=float32)
    """
    low, high = saliency_map.min(), saliency_map.max()
    if not high > low:
        warnings.warn(
            "a saliency map is constant and becomes zero: this layer has no evidence for this target",
            stacklevel=2,
        )
        return np.zeros(saliency_map.shape, dtype=np.float32)
    # Double precision: a range of 1e-30 on an offset of 1 is below what single precision holds.
    values = saliency_map.astype(np.float64)
    values = np.ldexp(values, -unit_exponents(values))  # not to overflow
    low, high = values.min(), values.max()
    return np.ascontiguousarray((values - low) / (high - low), dtype=np.float32)


def unit_exponents(maps: NDArray[np.floating], axis: int | tuple[int, ...] | None = None) -> NDArray[np.intc]:
    """The exponents of the powers of two that scale the maps' largest magnitude to [1, 2).

    `np.ldexp(maps, -unit_exponents(maps))` loses no digit, and nothing in it overflows or vanishes.

    Args:
        maps: float32 or float64, finite.
        axis: axes over which the largest magnitude is taken; None: all.

    Returns:
        An array that keeps these axes with length 1. The exponent of zeros has no meaning.
    """
    peaks = np.abs(maps).max(axis=axis, keepdims=True)
    exponents: NDArray[np.intc] = np.frexp(peaks)[1] - 1
    return exponents
