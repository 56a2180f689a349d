r"""The mask: the low-pass wrap (LPW) of the base scale's map, and its product with a map (FSD); eq. 13 to 16.

$$\bar M = \tfrac12(\max M_0 + \min M_0), \qquad
LPW = \mathrm{box}(\mathrm{median}(\min(M_0, \bar M))), \qquad FSD(M) = M \odot LPW$$

where $M_0$ is the base scale's map. It is coarse, but comes from the pass in which the model is most confident:
everything above its midpoint counts the same, and what lies far from it is dimmed.
"""

from __future__ import annotations

import warnings
from numbers import Integral

import cv2
import numpy as np
from numpy.typing import NDArray

from holistic_cam_plugin.method.normalize import unit_exponents

__all__ = ["denoising_mask", "fundamental_scale_denoising", "kernel_size", "low_pass_wrap"]

BLUR_SIZE_AT_224 = 51
KSIZE_AT_224 = 91
# OpenCV's 8-bit median filter counts in 16 bits and is silently wrong for larger kernels (OpenCV's issue 26407).
LARGEST_KERNEL = 255
# The box filter has no such limit, but its time grows with the window: one of a million pixels takes minutes.
LARGEST_BOX = 32767
# Products of two float64 maps beyond this power of two would overflow, or vanish.
LARGEST_EXPONENT = 900


def kernel_size(shorter_side: int, size_at_224: int) -> int:
    """A kernel's size in pixels for a map of this shorter side: in proportion, odd (ties round up), at least 3.

    Example:
        >>> kernel_size(224, 51), kernel_size(112, 51)
        (51, 25)
    """
    return max(3, shorter_side * size_at_224 // 224 // 2 * 2 + 1)


def fundamental_scale_denoising(
    primary_map: NDArray[np.floating],
    base_map: NDArray[np.floating],
    blur_size: int | None = None,
    ksize: int | None = None,
) -> NDArray[np.float64]:
    """The fused map times the mask of the base scale's map (FSD; paper, eq. 16).

    Args:
        primary_map: M_PHR, `(H, W)`, float32 or float64, finite; of a volume `(D, H, W)`.
        base_map: M0 in the same shape.
        blur_size, ksize: as in `denoising_mask`.

    Returns:
        In the same shape, float64, in the product of the maps' units; up to a power of two, where that product would
        overflow or vanish.

    Raises:
        TypeError, ValueError: maps of different shapes or not finite, and as in `denoising_mask`.

    Example:
        >>> fundamental_scale_denoising(np.eye(64), np.ones((64, 64))).shape
        (64, 64)
    """
    primary = _checked("primary_map", primary_map).astype(np.float64)
    if np.shape(base_map) != primary.shape:
        raise ValueError(f"base_map must have the shape of primary_map, {primary.shape}, got {np.shape(base_map)}")
    mask = denoising_mask(base_map, blur_size, ksize)
    own, other = unit_exponents(primary), unit_exponents(mask)
    exponent = np.clip(own + other, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    return np.asarray(np.ldexp(np.ldexp(primary, -own) * np.ldexp(mask, -other), exponent))


def denoising_mask(
    base_map: NDArray[np.floating],
    blur_size: int | None = None,
    ksize: int | None = None,
) -> NDArray[np.float64]:
    """The mask that the fused map is multiplied by: the low-pass wrap, unless it is zero everywhere.

    Args:
        base_map: M0, `(H, W)`, float32 or float64, finite; of a volume `(D, H, W)`.
        blur_size, ksize: as in `low_pass_wrap`.

    Returns:
        In the same shape, float64. If the median filter erases the base map's only hot spot, so that the wrap is zero
        everywhere: ones, with a warning.

    Raises:
        TypeError, ValueError: as in `low_pass_wrap`.

    Example:
        >>> base_map = np.zeros((64, 64), np.float32)
        >>> base_map[16:48, 16:48] = 1
        >>> mask = denoising_mask(base_map)
        >>> bool(mask[32, 32] > 2 * mask[0, 0])
        True
    """
    base = _checked("base_map", base_map)
    wrap, exponent = _unit_wrap(base, blur_size, ksize)
    wrap = wrap.astype(np.float64)
    if not wrap.any() and base.any():
        warnings.warn(
            "the mask is zero everywhere: the hot spot of the base scale's map is smaller than half of the median "
            "filter's window. The map is not masked; pass a smaller blur_size to mask it",
            stacklevel=3,
        )
        return np.ones_like(wrap)
    return np.asarray(np.ldexp(wrap, exponent))


def low_pass_wrap(
    base_map: NDArray[np.floating],
    blur_size: int | None = None,
    ksize: int | None = None,
) -> NDArray[np.floating]:
    """The low-pass wrap LPW of the base scale's map (paper, eq. 13 to 15).

    Args:
        base_map: M0, `(H, W)`, float32 or float64, finite, in any unit; a volume `(D, H, W)` is filtered slice by
            slice.
        blur_size: side of the median filter's window in pixels, odd, 1 to 255. None: 51 px for a shorter side of
            224 px, and in proportion.
        ksize: side of the box filter's window in pixels, odd, 1 to 32767. None: 91 px for 224 px.

    Returns:
        In the same shape and dtype (float32 for other dtypes), never below the map's minimum, in the map's units. A hot
        spot smaller than half of the median filter's window (about 1,300 of 224 x 224 px) is erased.

    Raises:
        TypeError: a kernel size is not an integer.
        ValueError: `base_map` is neither 2-D nor 3-D, is empty or not finite, or a kernel size is even or out of range.

    Example:
        >>> low_pass_wrap(np.ones((64, 64), np.float32)).shape
        (64, 64)
    """
    wrap, exponent = _unit_wrap(_checked("base_map", base_map), blur_size, ksize)
    return np.asarray(np.ldexp(wrap, exponent))


def check_kernels(blur_size: int | None, ksize: int | None) -> None:
    """Raise TypeError or ValueError unless each is None or an odd integer that its filter takes."""
    for name, size, largest in (("blur_size", blur_size, LARGEST_KERNEL), ("ksize", ksize, LARGEST_BOX)):
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise TypeError(f"{name} must be an odd integer or None, got {size!r}")
        if size % 2 == 0 or not 1 <= size <= largest:
            raise ValueError(f"{name} must be odd and from 1 to {largest} (pixels of the map), got {size}")


def _checked(name: str, saliency_map: NDArray[np.floating]) -> NDArray[np.floating]:
    """The map in float64 if it is, else in float32; ValueError unless it is one finite map or volume."""
    array = np.asarray(saliency_map)
    if array.dtype != np.float64:
        array = array.astype(np.float32)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"{name} must be one map, (H, W) or (D, H, W), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values, which the box filter would spread over the whole map")
    return array


def _unit_wrap(
    base_map: NDArray[np.floating], blur_size: int | None, ksize: int | None
) -> tuple[NDArray[np.floating], NDArray[np.intc]]:
    """The wrap of the map divided by a power of two, and that power's exponent, so that no unit is out of range."""
    check_kernels(blur_size, ksize)
    shorter = min(base_map.shape[-2:])
    median = kernel_size(shorter, BLUR_SIZE_AT_224) if blur_size is None else int(blur_size)
    box = kernel_size(shorter, KSIZE_AT_224) if ksize is None else int(ksize)
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
    # A low-pass signal loses nothing on a smaller map.
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
    # OpenCV's median filter takes large windows on 8-bit images only: the clipped map uses all 256 levels.
    levels = np.rint((np.minimum(base_map, midpoint) - low) * (255 / (midpoint - low))).astype(np.uint8)
    smooth = low + cv2.medianBlur(levels, median).astype(base_map.dtype) * ((midpoint - low) / 255)
    return np.asarray(np.maximum(cv2.blur(smooth, (box, box)), base_map.dtype.type(low)))
