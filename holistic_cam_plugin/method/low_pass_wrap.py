r"""Fundamental-scale denoising, FSD, by the low-pass wrap, LPW (eq. 13-16): a mask made of the base scale's map.

$$\bar M = \tfrac12(\max M_0 + \min M_0), \qquad
LPW = \mathrm{box}(\mathrm{median}(\min(M_0, \bar M))), \qquad FSD(M) = M \odot LPW$$

where $M_0$ is the base-scale map. It is coarse, but comes from the pass in which the model is most confident:
everything above its midpoint counts the same, and what lies far from it is dimmed.
"""

from __future__ import annotations

import math
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["denoising_mask", "fundamental_scale_denoising", "kernel_size", "low_pass_wrap"]

BLUR_SIZE_AT_224 = 51
KSIZE_AT_224 = 91
# OpenCV's 8-bit median filter counts in 16 bits and is wrong, without a word, for larger kernels (its issue 26407).
LARGEST_KERNEL = 255


def kernel_size(shorter_side: int, size_at_224: int) -> int:
    """A kernel's size in pixels for a map of this shorter side: in proportion, odd (a tie goes up), at least 3."""
    return max(3, shorter_side * size_at_224 // 224 // 2 * 2 + 1)


def fundamental_scale_denoising(
    primary_map: NDArray[np.float32],
    base_map: NDArray[np.float32],
    blur_size: int | None = None,
    ksize: int | None = None,
    *,
    ksize_at_224: int = KSIZE_AT_224,
    power: float = 1.0,
) -> NDArray[np.float64]:
    """FSD: the fused map times the low-pass wrap of the base scale's map (paper, eq. 16).

    Args:
        primary_map: M_PHR, `(H, W)`, float32; of a volume `(D, H, W)`.
        base_map: M0 in the same shape.
        blur_size, ksize, ksize_at_224, power: as in `denoising_mask`.

    Returns:
        In the same shape, float64 (both factors may be 1e-20).
    """
    mask = denoising_mask(base_map, blur_size, ksize, ksize_at_224=ksize_at_224, power=power)
    return primary_map.astype(np.float64) * mask


def denoising_mask(
    base_map: NDArray[np.float32],
    blur_size: int | None = None,
    ksize: int | None = None,
    *,
    ksize_at_224: int = KSIZE_AT_224,
    power: float = 1.0,
) -> NDArray[np.float64]:
    """What FSD multiplies the fused map with: the low-pass wrap, or a power of it.

    Args:
        base_map: M0, `(H, W)`, float32; of a volume `(D, H, W)`.
        blur_size, ksize, ksize_at_224: as in `low_pass_wrap`.
        power: of the wrap, which is in units of its own maximum where that is not 1 (the paper's); 2 dims what lies
            beside the hot spots more, without moving their border.

    Returns:
        In the same shape, float64. Where the median erases the base map's only hot spot and nothing is left of the
        wrap, it is 1 everywhere, with a warning.
    """
    wrap = low_pass_wrap(base_map, blur_size, ksize, ksize_at_224=ksize_at_224).astype(np.float64)
    if not wrap.any() and base_map.any():
        warnings.warn(
            "the low-pass wrap is zero everywhere: the hot spot of the base scale's map is smaller than half of the "
            "median filter's window. The map is not masked; a smaller blur_size keeps the mask",
            stacklevel=3,
        )
        return np.ones_like(wrap)
    if power != 1 and wrap.any():  # 1e-20 to a power would be nothing
        wrap = (wrap / wrap.max()) ** power
    return wrap


def low_pass_wrap(
    base_map: NDArray[np.float32],
    blur_size: int | None = None,
    ksize: int | None = None,
    *,
    ksize_at_224: int = KSIZE_AT_224,
) -> NDArray[np.float32]:
    """The mask LPW of a base-scale map (paper, eq. 13-16).

    Args:
        base_map: M0, `(H, W)`, float32, finite; of a volume `(D, H, W)`, which is filtered slice by slice.
        blur_size: side of the median filter's window in pixels, odd, 1 to 255. None: 51 px for a shorter side of
            224 px, and in proportion.
        ksize: side of the box filter's window likewise. None: 91 px at 224 px.
        ksize_at_224: what stands for these 91 px.

    Returns:
        In the same shape, float32, never below the map's minimum, in the map's own units. It is flat where a hot spot
        is smaller than half of the median's window (about 1,300 of 224 x 224 px): that filter erases it.

    Raises:
        TypeError: a kernel size is no integer.
        ValueError: `base_map` is neither 2-D nor 3-D, or not finite, or a kernel size is even or out of range.
    """
    check_kernel("blur_size", blur_size)
    check_kernel("ksize", ksize)
    base_map = np.asarray(base_map, dtype=np.float32)
    if base_map.ndim not in (2, 3):
        raise ValueError(f"base_map must be one map, (H, W) or (D, H, W), got shape {base_map.shape}")
    if not np.isfinite(base_map).all():
        raise ValueError("base_map holds NaN or infinite values; a single one would spread over the whole box filter")
    shorter = min(base_map.shape[-2:])
    median = kernel_size(shorter, BLUR_SIZE_AT_224) if blur_size is None else blur_size
    box = kernel_size(shorter, ksize_at_224) if ksize is None else ksize
    if base_map.ndim == 3:  # slice by slice, in the volume's units
        bounds = float(base_map.min()), float(base_map.max())
        return np.stack([_wrap(one, median, box, bounds) for one in base_map])
    return _wrap(base_map, median, box)


def check_kernel(name: str, size: int | None) -> None:
    """Raise TypeError or ValueError unless `size` is None or an odd integer from 1 to 255."""
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} must be an odd integer or None, got {size!r}")
    if size % 2 == 0 or not 1 <= size <= LARGEST_KERNEL:
        raise ValueError(f"{name} must be odd and from 1 to {LARGEST_KERNEL} (pixels of the map), got {size}")


def check_power(power: float | None) -> None:
    """Raise ValueError unless `power` is None or a finite number above 0."""
    if power is None:
        return
    if isinstance(power, bool) or not isinstance(power, (int, float)) or not 0 < power < math.inf:
        raise ValueError(f"mask_power must be a finite number above 0 or None, got {power!r}")


def _wrap(
    base_map: NDArray[np.float32], median: int, box: int, bounds: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    if median <= LARGEST_KERNEL:
        return _filtered(base_map, median, box, bounds)
    # A low-pass signal loses nothing by being computed on a smaller map.
    shrink = LARGEST_KERNEL / median
    height, width = (max(1, round(side * shrink)) for side in base_map.shape)
    small = np.asarray(cv2.resize(base_map, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
    wrap = _filtered(small, LARGEST_KERNEL, int(box * shrink) // 2 * 2 + 1, bounds)
    return np.asarray(cv2.resize(wrap, base_map.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _filtered(
    base_map: NDArray[np.float32], median: int, box: int, bounds: tuple[float, float] | None
) -> NDArray[np.float32]:
    low, high = bounds or (float(base_map.min()), float(base_map.max()))
    midpoint = (low + high) / 2
    if not midpoint > low:
        return base_map.copy()
    # OpenCV's median takes large windows on 8-bit images alone: all of its 256 levels serve the cut map.
    levels = np.rint((np.minimum(base_map, midpoint) - low) * (255 / (midpoint - low))).astype(np.uint8)
    smooth = low + cv2.medianBlur(levels, median).astype(np.float32) * np.float32((midpoint - low) / 255)
    return np.maximum(cv2.blur(smooth, (box, box)), np.float32(low))
