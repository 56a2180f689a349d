"""Reshape transforms of vision transformers that follow the size of the image: tokens become maps.

They stand where the library's `vit_reshape_transform` and `swinT_reshape_transform` stand, which know one grid alone.
`HolisticCAM` gives a reshape transform that has a parameter `image_size` the height and width in pixels of the image
that goes through the model. The library's methods do not: with them a square image is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

__all__ = ["swin_reshape_transform", "vit_reshape_transform"]

# Patch sizes in pixels of the models in use: tried first, since a grid of few patches fits others as well.
COMMON_PATCH_SIZES = (4, 8, 12, 14, 16, 18, 20, 28, 30, 32)
# Class token, distillation token, registers: the most that models in use put before the grid. Were it more, the
# grids of two patch sizes could be mistaken for one another.
MOST_PREFIX_TOKENS = 9


def vit_reshape_transform(
    tokens: Tensor,
    image_size: tuple[int, ...] | None = None,
    patch_size: int | None = None,
    prefix_tokens: int | None = None,
) -> Tensor:
    """Tokens of a ViT, without those before the grid, as maps.

    Args:
        tokens: `(B, N, C)`; the patches row by row, after class, distillation and register tokens if there are any.
        image_size: height and width of the image in pixels; None: a square one.
        patch_size: in pixels; None: the one that leaves room for all the tokens. Name it with `functools.partial` for
            images of a few patches only.
        prefix_tokens: tokens before the grid; None: what the grid leaves over.

    Returns:
        `(B, C, h, w)`.

    Raises:
        ValueError: no grid of the image's aspect has that many patches.
    """
    if tokens.ndim != 3:
        raise ValueError(f"a ViT's tokens must be (B, N, C), got shape {tuple(tokens.shape)}: choose another layer")
    for height, width in _patch_grids(tokens.shape[1], image_size, patch_size):
        prefix = tokens.shape[1] - height * width
        if (0 <= prefix <= MOST_PREFIX_TOKENS) if prefix_tokens is None else prefix == prefix_tokens:
            return _as_maps(tokens[:, prefix:], height, width)
    raise ValueError(
        f"{tokens.shape[1]} tokens are no grid of an image of {_written(image_size)} px: give "
        "functools.partial(vit_reshape_transform, patch_size=..., prefix_tokens=...) as reshape_transform"
    )


def swin_reshape_transform(
    tokens: Tensor, image_size: tuple[int, ...] | None = None, channels_last: bool = True
) -> Tensor:
    """Features of a Swin transformer, or any other with the channels last, as maps.

    Args:
        tokens: `(B, h, w, C)` as torchvision and timm have them, or `(B, N, C)` row by row.
        image_size: height and width of the image in pixels, for the aspect of N tokens; None: a square one.
        channels_last: False: what has four dimensions is `(B, C, h, w)` already, as in models whose first stages are
            convolutions.

    Returns:
        `(B, C, h, w)`.

    Raises:
        ValueError: another number of dimensions, or N tokens that are no grid of the image's aspect.
    """
    if tokens.ndim == 4:
        return tokens.permute(0, 3, 1, 2) if channels_last else tokens
    if tokens.ndim != 3:
        raise ValueError(
            f"features with the channels last must be (B, h, w, C) or (B, N, C), got shape {tuple(tokens.shape)}"
        )
    count = tokens.shape[1]
    aspect = 1.0 if image_size is None else image_size[-2] / image_size[-1]
    height = round(math.sqrt(count * aspect))
    # Rounding at every merging of patches moves a side by one or two.
    near = sorted(range(max(1, height - 2), height + 3), key=lambda h: abs(h - math.sqrt(count * aspect)))
    for height in near:
        if count % height == 0:
            return _as_maps(tokens, height, count // height)
    raise ValueError(f"{count} tokens are no grid of an image of {_written(image_size)} px")


def _patch_grids(count: int, image_size: tuple[int, ...] | None, patch_size: int | None) -> Iterator[tuple[int, int]]:
    """Grids that so many tokens may be, the likely ones first: patches that end at the border are cut off or padded."""
    if image_size is None:
        side = math.isqrt(count)
        yield side, side
        return
    height, width = image_size[-2:]
    for size in (*COMMON_PATCH_SIZES, *range(1, min(height, width) + 1)) if patch_size is None else (patch_size,):
        padded = -(-height // size), -(-width // size)
        if padded[0] * padded[1] <= count:
            yield padded
        yield height // size, width // size


def _as_maps(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.reshape(len(tokens), height, width, -1).permute(0, 3, 1, 2)


def _written(image_size: tuple[int, ...] | None) -> str:
    return "any" if image_size is None else "x".join(map(str, image_size))
