r"""Image pyramid: the sizes at which the model sees the image (eq. 9), and the resizing.

The base scale is the untouched input. Every further scale enlarges both sides by the same factor,

$$\zeta_t = \zeta_0 + \frac{\zeta_T}{T}(t - 1), \qquad t = 1 \dots T$$

where $\zeta_0$ is the shorter side of the input, $T$ the number of scales and $\zeta_T$ the paper's
"maximum" size (which the formula overshoots: 224 px ends at 1081 px). Volumes and videos are enlarged along their
depth by the same factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["pyramid_sizes", "resize_image"]

# No image that is enlarged beyond it fits into any memory.
LARGEST = 2**16

# Pyramids by name: shorter sides of an image of 224 px, of others in proportion.
#   fast: three of the paper's seven, about a seventh of the time; benchmarks/results/pareto says what they lose.
SIDE = 224
NAMED = {"fast": (224, 366, 509)}

INTERPOLATIONS = ("bilinear", "bicubic")


def pyramid_sizes(
    height: int,
    width: int,
    num_scales: int = 7,
    max_size: int = 1000,
    sizes: Sequence[int] | str | None = None,
    depth: int | None = None,
    multiple_of: int = 1,
) -> list[tuple[int, ...]]:
    """Height and width in pixels of every scale, the base scale first (paper, eq. 9).

    Args:
        height, width: size of the input in pixels.
        num_scales: T, the number of scales, at least 1.
        max_size: zeta_T in pixels, at least 1.
        sizes: shorter sides in pixels to use instead of the formula; the first one is the base scale. Or the name
            `"fast"`: factors 1, 366/224 and 509/224.
        depth: slices or frames of a volume. The shorter side is that of height and width all the same.
        multiple_of: heights and widths are rounded to the nearest multiple of it in pixels, at least one, for models
            that refuse others.

    Returns:
        One `(height, width)` a scale, of a volume `(depth, height, width)`. The aspect is kept, up to rounding, and
        each side is truncated to an integer before.

    Raises:
        TypeError: a value is not an integer.
        ValueError: a value is below 1 or beyond 65,536, `sizes` is empty or an unknown name, or the input's own sides
            are no multiples of `multiple_of`: its untouched image goes through the model, too.
    """
    sides = {"height": height, "width": width} if depth is None else {"depth": depth, "height": height, "width": width}
    for name, value in sides.items():
        check_positive_integer(name, value)
    check_pyramid(num_scales, max_size, sizes)
    check_positive_integer("multiple_of", multiple_of)
    if height % multiple_of or width % multiple_of:
        raise ValueError(
            f"the image's {height}x{width} px are no multiples of multiple_of={multiple_of}: crop or pad it, since the "
            "base scale is the untouched image"
        )
    # Python's integers don't overflow, NumPy's do.
    shorter, num_scales, max_size = min(int(height), int(width)), int(num_scales), int(max_size)
    if sizes is None:
        # Whole numbers only: zeta_t / zeta_0 as a fraction, so that no rounding moves a truncation.
        factors = [(shorter * num_scales + max_size * t, shorter * num_scales) for t in range(num_scales)]
    elif isinstance(sizes, str):
        factors = [(side, SIDE) for side in NAMED[sizes]]
    else:
        factors = [(int(size), shorter) for size in sizes]
    steps = {name: 1 if name == "depth" else int(multiple_of) for name in sides}
    return [
        tuple(_nearest(int(side) * numerator // denominator, steps[name]) for name, side in sides.items())
        for numerator, denominator in factors
    ]


def resize_image(images: Tensor, size: tuple[int, ...], interpolation: str = "bilinear") -> Tensor:
    """Images at another size: half-pixel centres (`align_corners=False`), no antialiasing.

    Args:
        images: `(B, C, H, W)` or volumes `(B, C, D, H, W)`, any floating dtype; resized in float32 and given back in
            their dtype.
        size: `(height, width)` or `(depth, height, width)` in pixels. At their own size they come back as they are.
        interpolation: `"bilinear"` (trilinear for volumes) or, for images, `"bicubic"`.

    Returns:
        `(B, C, *size)`.

    Raises:
        ValueError: unknown `interpolation`, or `"bicubic"` for volumes.
    """
    check_interpolation(interpolation)
    if images.shape[2:] == size:
        return images
    if images.ndim == 5:
        if interpolation != "bilinear":
            raise ValueError(
                f"volumes are enlarged trilinearly: interpolation must be 'bilinear', got {interpolation!r}"
            )
        interpolation = "trilinear"
    return F.interpolate(images.float(), size=size, mode=interpolation, align_corners=False).to(images.dtype)


def _nearest(side: int, step: int) -> int:
    """The multiple of `step` that is nearest to `side`, the larger of two, at least one step."""
    return max(step, (2 * side + step) // (2 * step) * step)


def check_images(images: Tensor, device: torch.device, volumes: bool = False) -> Tensor:
    """Images, detached and on the device.

    Raises:
        TypeError, ValueError: anything but a batch `(B, C, H, W)` of floats or, where `volumes` are taken,
            `(B, C, D, H, W)`.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = f"dtype {images.dtype}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise TypeError(f"input_tensor must be a floating-point tensor of preprocessed images, got {given}")
    if images.ndim not in ((4, 5) if volumes else (4,)) or 0 in images.shape:
        also = " or (B, C, D, H, W) of volumes" if volumes else ""
        raise ValueError(f"input_tensor must be a batch (B, C, H, W) of images{also}, got shape {tuple(images.shape)}")
    return images.detach().to(device)


def check_pyramid(num_scales: int, max_size: int, sizes: Sequence[int] | str | None) -> None:
    """Raise TypeError or ValueError if these do not describe a pyramid."""
    check_positive_integer("num_scales", num_scales, LARGEST)
    check_positive_integer("max_size", max_size, LARGEST)
    if isinstance(sizes, str):
        if sizes not in NAMED:
            raise ValueError(f"sizes must be one of {', '.join(NAMED)}, or shorter sides in pixels, got {sizes!r}")
    elif sizes is not None:
        _check_sides(sizes)


def _check_sides(sizes: Sequence[int]) -> None:
    if isinstance(sizes, bytes) or not isinstance(sizes, Sequence):
        raise TypeError(f"sizes must be a sequence of shorter sides in pixels, such as [224, 448], got {sizes!r}")
    if len(sizes) == 0:
        raise ValueError("sizes is empty: name at least one shorter side in pixels, or leave it None")
    for side in sizes:
        check_positive_integer("every one of sizes", side, LARGEST)


def check_multiples(multiple_of: int, tiles: bool) -> None:
    """Raise TypeError or ValueError unless this is a number of pixels, 1 where the image is covered by tiles."""
    check_positive_integer("multiple_of", multiple_of)
    if tiles and multiple_of > 1:
        raise ValueError(
            f"multiple_of={multiple_of} and tiles=True exclude one another: tiles have the image's own size, and the "
            "model sees no other"
        )


def check_interpolation(interpolation: str) -> None:
    """Raise ValueError if the image can't be enlarged this way."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")


def check_switch(name: str, value: bool) -> None:
    """Raise TypeError unless `value` is True or False, NumPy's included."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_positive_integer(name: str, value: int, largest: int | None = None) -> None:
    """Raise TypeError or ValueError unless `value` is an integer, NumPy's included, of at least 1 (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if largest is not None and value > largest:
        raise ValueError(f"{name} must be at most {largest}, got {value}")
