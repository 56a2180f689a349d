"""Reshape transforms of vision transformers and feature pyramids for images of any size.

They replace pytorch-grad-cam's `vit_reshape_transform` and `swinT_reshape_transform`, which assume a fixed grid.
`HolisticCAM` passes the height and width of the image in pixels as `image_size`; pytorch-grad-cam's methods do not, so
that a square image is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fpn_reshape_transform", "swin_reshape_transform", "unit_reshape_transform", "vit_reshape_transform"]

# Common patch sizes in pixels, tried first: a grid of few patches is consistent with other sizes too.
COMMON_PATCH_SIZES = (4, 8, 12, 14, 16, 18, 20, 28, 30, 32)
# Class token, distillation token, registers. With more tokens allowed, the grids of two patch sizes would be ambiguous.
MAX_PREFIX_TOKENS = 9


def vit_reshape_transform(
    tokens: Tensor,
    image_size: tuple[int, ...] | None = None,
    patch_size: int | None = None,
    prefix_tokens: int | None = None,
) -> Tensor:
    """Reshape the tokens of a ViT to maps and drop the prefix tokens.

    Args:
        tokens: `(B, N, C)`: class, distillation and register tokens if there are any, then the patches row by row.
        image_size: height and width of the image in pixels. None: a square image.
        patch_size: in pixels. None: inferred from the number of tokens; set it with `functools.partial` for images of a
            few patches.
        prefix_tokens: number of tokens before the patches. None: inferred.

    Returns:
        `(B, C, h, w)`.

    Raises:
        ValueError: the number of tokens fits no grid of the image's aspect ratio.

    Example:
        >>> tokens = torch.rand(2, 1 + 14 * 20, 192)  # a class token and patches of 16 px
        >>> vit_reshape_transform(tokens, image_size=(224, 320)).shape
        torch.Size([2, 192, 14, 20])
    """
    if tokens.ndim != 3:
        raise ValueError(f"a ViT's tokens must be (B, N, C), got shape {tuple(tokens.shape)}: choose another layer")
    for height, width in _list_grids(tokens.shape[1], image_size, patch_size):
        prefix = tokens.shape[1] - height * width
        if (0 <= prefix <= MAX_PREFIX_TOKENS) if prefix_tokens is None else prefix == prefix_tokens:
            return _to_maps(tokens[:, prefix:], height, width)
    raise ValueError(
        f"{tokens.shape[1]} tokens fit no grid of {_describe(image_size)}: pass reshape_transform="
        "functools.partial(vit_reshape_transform, patch_size=..., prefix_tokens=...)"
    )


def swin_reshape_transform(
    tokens: Tensor,
    image_size: tuple[int, ...] | None = None,
    channels_last: bool | None = True,
    prefix_tokens: int = 0,
    suffix_tokens: int = 0,
) -> Tensor:
    """Reshape the features of a Swin transformer, or of any model with channels last, to maps.

    Args:
        tokens: `(B, h, w, C)`, as in torchvision and timm, or `(B, N, C)` row by row.
        image_size: height and width of the image in pixels, which determine the grid of N tokens. None: a square image.
        channels_last: False if features with four dimensions are `(B, C, h, w)` already, as in models whose first
            stages are convolutions. None: those whose last two dimensions have the image's proportions are.
        prefix_tokens, suffix_tokens: numbers of tokens before and after the N tokens, which are dropped.

    Returns:
        `(B, C, h, w)`.

    Raises:
        ValueError: the number of dimensions is not 3 or 4, or N tokens fit no grid of the image's aspect ratio.

    Example:
        >>> swin_reshape_transform(torch.rand(2, 7, 7, 768)).shape
        torch.Size([2, 768, 7, 7])
    """
    if tokens.ndim == 4:
        if channels_last is None:
            channels_last = _stretch(tokens.shape[1:3], image_size) < _stretch(tokens.shape[2:], image_size)
        return tokens.permute(0, 3, 1, 2) if channels_last else tokens
    if tokens.ndim != 3:
        raise ValueError(
            f"features with channels last must be (B, h, w, C) or (B, N, C), got shape {tuple(tokens.shape)}"
        )
    tokens = tokens[:, prefix_tokens : tokens.shape[1] - suffix_tokens]
    height, width = _find_grid(tokens.shape[1], image_size)
    return _to_maps(tokens, height, width)


def unit_reshape_transform(tokens: Tensor, image_size: tuple[int, ...], unit_size: int = 32) -> Tensor:
    """Reshape the tokens of Hiera, which are in the order of its mask units, to maps.

    Tokens that are pooled together are as far apart as possible in this order: first come the upper left tokens of all
    blocks of 2x2 tokens, then the upper right ones, and so on; within these, the same again, until one token of every
    unit remains.

    Args:
        tokens: `(B, N, C)`; units of 1x1 tokens, those of the last stage, are row by row.
        image_size: height and width of the image in pixels. pytorch-grad-cam's own methods do not pass it: set it with
            `functools.partial`.
        unit_size: side of a mask unit in pixels.

    Returns:
        `(B, C, h, w)`.

    Raises:
        ValueError: the tokens are not `(B, N, C)`, or N tokens fit no grid of whole units.

    Example:
        >>> unit_reshape_transform(torch.rand(2, 56 * 56, 96), image_size=(224, 224)).shape
        torch.Size([2, 96, 56, 56])
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens in units must be (B, N, C), got shape {tuple(tokens.shape)}: choose another layer")
    height, width = _find_grid(tokens.shape[1], image_size)
    unit = height // max(1, round(image_size[-2] / unit_size))
    if unit < 1 or unit & (unit - 1) or height % unit or width % unit:
        raise ValueError(f"{height}x{width} tokens are no whole units of {unit_size} px of {_describe(image_size)}")
    return join_units(tokens, (height, width), unit)


def join_units(tokens: Tensor, grid: tuple[int, int], unit: int) -> Tensor:
    """Put tokens `(B, N, C)` that are in units of `unit` x `unit` tokens, a power of two, on a grid: `(B, C, h, w)`."""
    levels = unit.bit_length() - 1
    height, width = grid
    batch, _, channels = tokens.shape
    split = tokens.reshape(batch, *[2, 2] * levels, height // unit, width // unit, channels)
    # From the coarsest to the finest: the units' own grid, then the blocks of 2x2 from the last to the first.
    rows = [1 + 2 * level for level in range(levels, -1, -1)]
    columns = [axis + 1 for axis in rows]
    return split.permute(0, -1, *rows, *columns).reshape(batch, channels, height, width)


def _find_grid(count: int, image_size: tuple[int, ...] | None) -> tuple[int, int]:
    """The grid of `count` tokens with nearly the image's proportions; ValueError if there is none."""
    ideal = math.sqrt(count * (1.0 if image_size is None else image_size[-2] / image_size[-1]))
    # Every merging of patches rounds the sides, so the height may be off by one or two.
    rounded = round(ideal)
    for height in sorted(range(max(1, rounded - 2), rounded + 3), key=lambda h: abs(h - ideal)):
        if count % height == 0:
            return height, count // height
    raise ValueError(f"{count} tokens fit no grid of {_describe(image_size)}")


def _stretch(grid: Sequence[int], image_size: tuple[int, ...] | None) -> float:
    """By how much the proportions of a grid differ from the image's, as a logarithm."""
    ideal = 1.0 if image_size is None else image_size[-2] / image_size[-1]
    return abs(math.log(grid[0] / grid[1] / ideal))


def fpn_reshape_transform(levels: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
    """Join the levels of a feature pyramid, such as those of torchvision's Faster R-CNN, RetinaNet, FCOS and SSD.

    In contrast, pytorch-grad-cam's `fasterrcnn_reshape_transform` takes the magnitudes of Faster R-CNN's levels, at the
    size of the coarsest one.

    Args:
        levels: a dict, list or tuple of `(B, C_k, h_k, w_k)`.

    Returns:
        `(B, sum of all C_k, h, w)`: all levels, resized bilinearly to the finest one.

    Raises:
        TypeError: `levels` is something else.

    Example:
        >>> fpn_reshape_transform({"0": torch.rand(1, 256, 28, 28), "p6": torch.rand(1, 256, 7, 7)}).shape
        torch.Size([1, 512, 28, 28])
    """
    maps = list(levels.values() if isinstance(levels, Mapping) else levels)
    if isinstance(levels, Tensor) or not maps or any(not isinstance(some, Tensor) or some.ndim != 4 for some in maps):
        raise TypeError(f"levels must be a dict, list or tuple of maps (B, C, h, w), got a {type(levels).__name__}")
    height, width = (max(some.shape[axis] for some in maps) for axis in (2, 3))
    return torch.cat([F.interpolate(some, size=(height, width), mode="bilinear") for some in maps], dim=1)


def _list_grids(count: int, image_size: tuple[int, ...] | None, patch_size: int | None) -> Iterator[tuple[int, int]]:
    """Yield possible grids of patches, likely ones first; patches at the border may be padded or cut off."""
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


def _to_maps(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.reshape(len(tokens), height, width, -1).permute(0, 3, 1, 2)


def _describe(image_size: tuple[int, ...] | None) -> str:
    return "a square image" if image_size is None else f"an image of {'x'.join(map(str, image_size))} px"
