r"""Fundamental-scale denoising, FSD, by the low-pass wrap, LPW (eq. 13-16): a mask made of the base scale's map.

$$\bar M = \tfrac12(\max M_0 + \min M_0), \qquad
LPW = \mathrm{box}(\mathrm{median}(\min(M_0, \bar M))), \qquad FSD(M) = M \odot LPW$$

where $M_0$ is the base-scale map. It is coarse, but comes from the pass in which the model is most confident:
everything above its midpoint counts the same, and what lies far from it is dimmed.
"""

from __future__ import annotations

import sys
import warnings
from numbers import Integral, Real

import cv2
import numpy as np
from numpy.typing import NDArray

from holistic_cam_plugin.method.normalize import unit_exponents

__all__ = ["denoising_mask", "fundamental_scale_denoising", "kernel_size", "low_pass_wrap"]

BLUR_SIZE_AT_224 = 51
KSIZE_AT_224 = 91
# OpenCV's 8-bit median filter counts in 16 bits and is wrong, without a word, for larger kernels (its issue 26407).
LARGEST_KERNEL = 255
# The box filter has no such limit, but its time grows with the window: one of a million pixels takes minutes.
LARGEST_BOX = 32767
# Products of two float64 maps beyond this power of two would overflow, or vanish.
LARGEST_EXPONENT = 900


def kernel_size(shorter_side: int, size_at_224: int) -> int:
    """A kernel's size in pixels for a map of this shorter side: in proportion, odd (a tie goes up), at least 3."""
    return max(3, shorter_side * size_at_224 // 224 // 2 * 2 + 1)


def fundamental_scale_denoising(
    primary_map: NDArray[np.floating],
    base_map: NDArray[np.floating],
    blur_size: int | None = None,
    ksize: int | None = None,
    *,
    ksize_at_224: int = KSIZE_AT_224,
    power: float = 1.0,
) -> NDArray[np.float64]:
    """FSD: the fused map times the low-pass wrap of the base scale's map (paper, eq. 16).

    Args:
        primary_map: M_PHR, `(H, W)`, float32 or float64, finite; of a volume `(D, H, W)`.
        base_map: M0 in the same shape.
        blur_size, ksize, ksize_at_224, power: as in `denoising_mask`.

    Returns:
        In the same shape, float64 (both factors may be 1e-20), in the product of the maps' units; where float64 has no
        room for that, up to a power of two.

    Raises:
        TypeError, ValueError: maps of different shapes or not finite, and as in `denoising_mask`.
    """
    primary = _checked("primary_map", primary_map).astype(np.float64)
    if np.shape(base_map) != primary.shape:
        raise ValueError(f"base_map must have the shape of primary_map, {primary.shape}, got {np.shape(base_map)}")
    mask = denoising_mask(base_map, blur_size, ksize, ksize_at_224=ksize_at_224, power=power)
    own, other = unit_exponents(primary), unit_exponents(mask)
    exponent = np.clip(own + other, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    return np.asarray(np.ldexp(np.ldexp(primary, -own) * np.ldexp(mask, -other), exponent))


def denoising_mask(
    base_map: NDArray[np.floating],
    blur_size: int | None = None,
    ksize: int | None = None,
    *,
    ksize_at_224: int = KSIZE_AT_224,
    power: float = 1.0,
) -> NDArray[np.float64]:
    """What FSD multiplies the fused map with: the low-pass wrap, or a power of it.

    Args:
        base_map: M0, `(H, W)`, float32 or float64, finite; of a volume `(D, H, W)`.
        blur_size, ksize, ksize_at_224: as in `low_pass_wrap`.
        power: of the wrap, which is in units of its own maximum where that is not 1 (the paper's); 2 dims what lies
            beside the hot spots more, without moving their border.

    Returns:
        In the same shape, float64. Where the median erases the base map's only hot spot and nothing is left of the
        wrap, it is 1 everywhere, with a warning.

    Raises:
        TypeError, ValueError: as in `low_pass_wrap`, a power that is no finite number above 0, or one other than 1 of a
            map that is negative somewhere.
    """
    check_power("power", power)
    base = _checked("base_map", base_map)
    if power != 1 and base.min() < 0:
        raise ValueError(f"a power needs a base_map that is never negative, got values down to {base.min():g}")
    wrap, exponent = _unit_wrap(base, blur_size, ksize, ksize_at_224)
    wrap = wrap.astype(np.float64)
    if not wrap.any() and base.any():
        warnings.warn(
            "the low-pass wrap is zero everywhere: the hot spot of the base scale's map is smaller than half of the "
            "median filter's window. The map is not masked; a smaller blur_size keeps the mask",
            stacklevel=3,
        )
        return np.ones_like(wrap)
    if power == 1 or not wrap.any():
        return np.asarray(np.ldexp(wrap, exponent))
    return np.asarray((wrap / wrap.max()) ** power)


def low_pass_wrap(
    base_map: NDArray[np.floating],
    blur_size: int | None = None,
    ksize: int | None = None,
    *,
    ksize_at_224: int = KSIZE_AT_224,
) -> NDArray[np.floating]:
    """The mask LPW of a base-scale map (paper, eq. 13-16).

    Args:
        base_map: M0, `(H, W)`, float32 or float64, finite, in any unit; a volume, `(D, H, W)`, is filtered slice by
            slice.
        blur_size: side of the median filter's window in pixels, odd, 1 to 255. None: 51 px for a shorter side of
            224 px, and in proportion.
        ksize: side of the box filter's window likewise, 1 to 32767. None: 91 px at 224 px.
        ksize_at_224: what stands for these 91 px.

    Returns:
        In the same shape and dtype (float32 for other dtypes), never below the map's minimum, in the map's own units: a
        map times any number above 0 has the wrap times that number. It is flat where a hot spot is smaller than half of
        the median's window (about 1,300 of 224 x 224 px): that filter erases it.

    Raises:
        TypeError: a kernel size is no integer.
        ValueError: `base_map` is neither 2-D nor 3-D, is empty or not finite, or a kernel size is even or out of range.
    """
    wrap, exponent = _unit_wrap(_checked("base_map", base_map), blur_size, ksize, ksize_at_224)
    return np.asarray(np.ldexp(wrap, exponent))


def check_kernels(blur_size: int | None, ksize: int | None) -> None:
    """Raise TypeError or ValueError unless each is None or an odd integer that its filter takes, NumPy's included."""
    for name, size, largest in (("blur_size", blur_size, LARGEST_KERNEL), ("ksize", ksize, LARGEST_BOX)):
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise TypeError(f"{name} must be an odd integer or None, got {size!r}")
        if size % 2 == 0 or not 1 <= size <= largest:
            raise ValueError(f"{name} must be odd and from 1 to {largest} (pixels of the map), got {size}")


def check_power(name: str, power: float | None) -> None:
    """Raise ValueError unless `power` is None or a finite number above 0."""
    if power is None:
        return
    if isinstance(power, bool) or not isinstance(power, Real) or not 0 < power <= sys.float_info.max:
        raise ValueError(f"{name} must be a finite number above 0 or None, got {power!r}")


def _checked(name: str, saliency_map: NDArray[np.floating]) -> NDArray[np.floating]:
    """The map in float64 if it is, else in float32; ValueError unless it is one finite map or volume."""
    array = np.asarray(saliency_map)
    if array.dtype != np.float64:
        array = array.astype(np.float32)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"{name} must be one map, (H, W) or (D, H, W), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values; a single one would spread over the whole box filter")
    return array


def _unit_wrap(
    base_map: NDArray[np.floating], blur_size: int | None, ksize: int | None, ksize_at_224: int
) -> tuple[NDArray[np.floating], NDArray[np.intc]]:
    """The wrap of the map divided by a power of two, and that power's exponent: no unit is too small or too large."""
    check_kernels(blur_size, ksize)
    shorter = min(base_map.shape[-2:])
    median = kernel_size(shorter, BLUR_SIZE_AT_224) if blur_size is None else int(blur_size)
    box = kernel_size(shorter, ksize_at_224) if ksize is None else int(ksize)
    exponent = unit_exponents(base_map)
    unit_map = np.ldexp(base_map, -exponent)
    if unit_map.ndim == 2:
        return _wrap(unit_map, median, box), exponent
    bounds = float(unit_map.min()), float(unit_map.max())  # slice by slice, in the volume's units
    return np.stack([_wrap(one, median, box, bounds) for one in unit_map]), exponent


def _wrap(
    base_map: NDArray[np.floating], median: int, box: int, bounds: tuple[float, float] | None = None
) -> NDArray[np.floating]:
    if median <= LARGEST_KERNEL:
        return _filtered(base_map, median, box, bounds)
    # A low-pass signal loses nothing by being computed on a smaller map.
    shrink = LARGEST_KERNEL / median
    height, width = (max(1, round(side * shrink)) for side in base_map.shape)
    small = np.asarray(cv2.resize(base_map, (width, height), interpolation=cv2.INTER_AREA), dtype=base_map.dtype)
    wrap = _filtered(small, LARGEST_KERNEL, int(box * shrink) // 2 * 2 + 1, bounds)
    return np.asarray(cv2.resize(wrap, base_map.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=base_map.dtype)


def _filtered(
    base_map: NDArray[np.floating], median: int, box: int, bounds: tuple[float, float] | None
) -> NDArray[np.floating]:
    low, high = bounds or (float(base_map.min()), float(base_map.max()))
    midpoint = (low + high) / 2
    if not midpoint > low:
        return base_map.copy()
    # OpenCV's median takes large windows on 8-bit images alone: all of its 256 levels serve the cut map.
    levels = np.rint((np.minimum(base_map, midpoint) - low) * (255 / (midpoint - low))).astype(np.uint8)
    smooth = low + cv2.medianBlur(levels, median).astype(base_map.dtype) * ((midpoint - low) / 255)
    return np.asarray(np.maximum(cv2.blur(smooth, (box, box)), base_map.dtype.type(low)))
