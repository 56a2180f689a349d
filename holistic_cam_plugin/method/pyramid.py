r"""Image pyramid (eq. 9): the sizes at which the model sees the image, and the resizing.

The base scale is the original image. Every further scale enlarges both sides by the same factor,

$$\zeta_t = \zeta_0 + \frac{\zeta_T}{T}(t - 1), \qquad t = 1 \dots T$$

where $\zeta_0$ is the shorter side of the input, $T$ the number of scales and $\zeta_T$ the paper's "maximum" size,
which the formula exceeds: the last scale of 224 px is 1081 px. Volumes and videos are enlarged along their depth, too.

`"fast"` has other sizes. In most networks a layer of stride s has its positions at the pixels 0, s, 2 s ... An image of
k s pixels ends s - 1 pixels after the last of them: maps, which are resized as if positions were the centres of cells,
lie half a cell too far to the upper left. In an image of k s + 1 pixels the grid begins and ends at the border, and the
map lies in its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from holistic_cam_plugin.checks import check_positive_integer
from holistic_cam_plugin.names import FAST, NAMED_SIZES, PAPER

__all__ = ["pyramid_sizes", "resize_image"]

# Images larger than this do not fit into any memory.
LARGEST = 2**16

# A narrow image is enlarged until its shorter side is long: at most so many times each side, or to so many pixels.
MOST_TIMES, MOST_PIXELS = 64, 2**24

# Pyramids by name: eq. 9, and shorter sides for an image of 224 px, in proportion for others, which
# benchmarks/results/few_scales selected.
SIDE = 224
FAST_SIDES = (224, 353, 609)
FAST_TILED_SIDES = (224, 609)  # 10 windows; 353 px would take 4 more

# A deep layer has about 7 positions along the shorter side, and a stride of at most 32 pixels.
POSITIONS, LARGEST_STRIDE = 7, 32

INTERPOLATIONS = ("bilinear", "bicubic")


def pyramid_sizes(
    height: int,
    width: int,
    num_scales: int = 7,
    max_size: int = 1000,
    sizes: Sequence[int] | str | None = None,
    depth: int | None = None,
    multiple_of: int = 1,
    tiles: bool = False,
) -> list[tuple[int, ...]]:
    """Height and width in pixels of every scale, the base scale first (paper, eq. 9).

    Args:
        height, width: size of the input in pixels.
        num_scales: T, the number of scales, at least 1.
        max_size: zeta_T in pixels, at least 1.
        sizes: shorter sides in pixels in place of the formula; the first one is the base scale. `"fast"`: the shorter
            side itself, and about 353/224 and 609/224 times that, so that grids begin and end at the border.
            `"paper"`: the formula.
        depth: slices or frames of a volume; the shorter side is that of height and width.
        multiple_of: round heights and widths to the nearest multiple of this number of pixels, at least one.
        tiles: leave out the middle size of `"fast"`, which takes 4 of 14 windows of the image's own size.

    Returns:
        One `(height, width)` per scale, of a volume `(depth, height, width)`. The aspect ratio is kept, up to
        truncation to integers or, with `"fast"`, half a stride.

    Raises:
        TypeError: a value is not an integer.
        ValueError: a value is below 1 or above 65,536, `sizes` is empty or an unknown name, the input's sides are no
            multiples of `multiple_of`, or a scale has a side above 65,536 or more than 2**24 pixels and 64 times the
            input's sides.

    Example:
        >>> [shorter for shorter, _ in pyramid_sizes(224, 320)]
        [224, 366, 509, 652, 795, 938, 1081]
    """
    sides = {"height": height, "width": width} if depth is None else {"depth": depth, "height": height, "width": width}
    for name, value in sides.items():
        check_positive_integer(name, value)
    check_pyramid(num_scales, max_size, sizes)
    check_positive_integer("multiple_of", multiple_of)
    if height % multiple_of or width % multiple_of:
        raise ValueError(
            f"the image has {height}x{width} px, which are no multiples of multiple_of={multiple_of}: crop or pad it, "
            "because the model sees the original image, too"
        )
    # Python's integers don't overflow, NumPy's do.
    shorter, num_scales, max_size = min(int(height), int(width)), int(num_scales), int(max_size)
    if sizes is None or sizes == PAPER:
        # zeta_t / zeta_0 as a fraction of integers: rounding could move a truncation.
        factors = [(shorter * num_scales + max_size * t, shorter * num_scales) for t in range(num_scales)]
    elif sizes == FAST:
        factors = [(side, SIDE) for side in (FAST_TILED_SIDES if tiles else FAST_SIDES)]
    else:
        factors = [(int(size), shorter) for size in sizes]
    cell = int(multiple_of)
    beyond = 0  # pixels after the last whole cell
    if sizes == FAST and cell == 1:
        cell, beyond = _guess_stride(shorter), 1

    def enlarge(name: str, side: int, numerator: int, denominator: int) -> int:
        enlarged = side * numerator // denominator
        if name == "depth" or numerator == denominator:
            return enlarged
        return _nearest(enlarged - beyond, cell) + beyond

    scales = [tuple(enlarge(name, int(side), *factor) for name, side in sides.items()) for factor in factors]
    _check_largest(max(scales, key=math.prod), tuple(map(int, sides.values())))
    return scales


def _check_largest(scale: tuple[int, ...], own: tuple[int, ...]) -> None:
    """Raise ValueError for a scale that no memory holds, as those of very narrow images."""
    if max(scale) > LARGEST or math.prod(scale) > max(MOST_PIXELS, math.prod(own) * MOST_TIMES ** len(own)):
        larger, image = ("x".join(map(str, sides)) for sides in (scale, own))
        raise ValueError(
            f"an image of {image} px would be enlarged to {larger} px: crop or pad it, or pass sizes=[...], shorter "
            "sides in pixels"
        )


def resize_image(images: Tensor, size: tuple[int, ...], interpolation: str = "bilinear") -> Tensor:
    """Images at another size: half-pixel centres (`align_corners=False`), no antialiasing.

    Args:
        images: `(B, C, H, W)` or volumes `(B, C, D, H, W)`, any floating dtype; resized in float32.
        size: `(height, width)` or `(depth, height, width)` in pixels.
        interpolation: `"bilinear"` (trilinear for volumes) or, for images, `"bicubic"`.

    Returns:
        `(B, C, *size)` in the images' dtype; the images themselves, if they have this size.

    Raises:
        ValueError: unknown `interpolation`, or `"bicubic"` for volumes.

    Example:
        >>> resize_image(torch.rand(1, 3, 64, 64), (96, 96)).shape
        torch.Size([1, 3, 96, 96])
    """
    check_interpolation(interpolation)
    if images.shape[2:] == size:
        return images
    if images.ndim == 5:
        if interpolation != "bilinear":
            raise ValueError(f"interpolation must be 'bilinear' for volumes, got {interpolation!r}")
        interpolation = "trilinear"
    return F.interpolate(images.float(), size=size, mode=interpolation, align_corners=False).to(images.dtype)


def _guess_stride(shorter: int) -> int:
    """The power of two nearest to the stride of a deep layer, for images of this shorter side."""
    return min(LARGEST_STRIDE, 1 << max(0, round(math.log2(shorter / POSITIONS))))


def _nearest(side: int, step: int) -> int:
    """The multiple of `step` nearest to `side`, at least one step; ties round up."""
    return max(step, (2 * side + step) // (2 * step) * step)


def check_pyramid(num_scales: int, max_size: int, sizes: Sequence[int] | str | None) -> None:
    """Raise TypeError or ValueError if these do not describe a pyramid."""
    check_positive_integer("num_scales", num_scales, LARGEST)
    check_positive_integer("max_size", max_size, LARGEST)
    if isinstance(sizes, str):
        if sizes not in NAMED_SIZES:
            names = ", ".join(NAMED_SIZES)
            raise ValueError(f"sizes must be one of {names}, or shorter sides in pixels, got {sizes!r}")
    elif sizes is not None:
        _check_sides(sizes)


def _check_sides(sizes: Sequence[int]) -> None:
    if isinstance(sizes, bytes) or not isinstance(sizes, Sequence):
        raise TypeError(f"sizes must be a sequence of shorter sides in pixels, such as [224, 448], got {sizes!r}")
    if len(sizes) == 0:
        raise ValueError("sizes is empty: pass at least one shorter side in pixels, or None")
    for side in sizes:
        check_positive_integer("every item of sizes", side, LARGEST)


def check_multiples(multiple_of: int, tiles: bool) -> None:
    """Raise TypeError or ValueError unless this is a number of pixels, and 1 with `tiles`."""
    check_positive_integer("multiple_of", multiple_of)
    if tiles and multiple_of > 1:
        raise ValueError(
            f"multiple_of={multiple_of} excludes tiles=True, with which the model sees images of one size only"
        )


def check_interpolation(interpolation: str) -> None:
    """Raise ValueError for an unknown interpolation."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
