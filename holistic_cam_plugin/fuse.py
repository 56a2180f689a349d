r"""Multi-scale fusion (eq. 10-12): activations and weights of all the scales become one map.

$$\bar A = \frac1T \sum_t \mathrm{resize}(A_t), \quad \bar W = \frac1T \sum_t \mathrm{resize}(W_t), \quad
M_{PHR} = \mathrm{ReLU}\Big(\sum_k \bar W_k \odot \bar A_k\Big)$$

where `resize` is bilinear to the canvas, the input's height and width, and k runs over the channels: a product of
means, not a mean of products.

Resizing is linear, $\mathrm{resize}(X) = U X V^T$, so the mean over the scales is one matrix product with the scales
stacked along the inner axis. A band of the canvas's rows needs only the few rows of each scale that lie under it, and
a few channels at a time fill a working buffer: nothing of the size of channels x canvas ever exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fuse", "fuse_principal"]

# Rows of the canvas filled at once: few enough to skip most of the zeros in the matrices, enough for the products to
# run at full speed.
BAND_ROWS = 56
# Elements of one working buffer, 16 MB of float32 on a CPU: smaller ones cost calls, larger ones cost memory and are no
# faster. A GPU wants larger products.
CPU_BUFFER = 2**22
GPU_BUFFER = 2**26


def fuse(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The primary high-resolution map M_PHR (paper, eq. 10-12); of one scale alone, the base map M0 (eq. 13).

    Args:
        activations: A_t, one `(C, h_t, w_t)` a scale, float32, finite.
        weights: W_t in the same shapes.
        size: `(H, W)` of the canvas in pixels.

    Returns:
        `(H, W)`, float32, never negative, in the product's own units (not scaled to [0, 1]).

    Raises:
        ValueError: no scale at all, or shapes that do not belong together.
    """
    _check_stacks(activations, weights)
    fused = activations[0].new_zeros(size)
    grids = [(x.shape[-2], x.shape[-1]) for x in activations]
    channels = _contributing_channels(activations, weights)
    with torch.autocast(fused.device.type, enabled=False):
        columns = _column_matrices(grids, fused)
        block = max(1, _buffer_elements(fused) // (sum(h for h, _ in grids) * size[1]))
        for band in _bands(grids, fused, BAND_ROWS):
            for some in channels.split(block):
                product = _resized_mean(activations, some, band, columns)
                product *= _resized_mean(weights, some, band, columns)
                fused[band.top : band.bottom] += product.sum(dim=0)
    return fused.clamp_(min=0)


def fuse_principal(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """`fuse` with the sum over channels replaced by their first principal component (`eigen_smooth`).

    The library decomposes the whole `(H * W, C)` matrix. The covariance of the channels, gathered band by band, has
    the same first component in C^2 elements. An eigenvector's sign is arbitrary: here it is the one that correlates
    positively with the sum over channels.

    Args, returns and raises as `fuse`.
    """
    _check_stacks(activations, weights)
    fused = activations[0].new_zeros(size)
    channels = _contributing_channels(activations, weights)
    if len(channels) == 0:
        return fused
    # Weights of 1e-10 are common and their squares would vanish; the component does not depend on the units.
    units = [torch.stack([x.abs().amax() for x in stack]).amax() for stack in (activations, weights)]
    grids = [(x.shape[-2], x.shape[-1]) for x in activations]
    rows = max(1, 2 * _buffer_elements(fused) // (len(channels) * size[1]))
    with torch.autocast(fused.device.type, enabled=False):
        columns = _column_matrices(grids, fused)

        def products() -> Iterator[tuple[_Band, Tensor]]:
            for band in _bands(grids, fused, rows):
                product = _resized_mean(activations, channels, band, columns).div_(units[0])
                product *= _resized_mean(weights, channels, band, columns).div_(units[1])
                yield band, product.flatten(start_dim=1)

        mean = fused.new_zeros(len(channels), 1)
        for _, product in products():
            mean += product.sum(dim=1, keepdim=True) / fused.numel()
        covariance = fused.new_zeros(len(channels), len(channels))
        for _, product in products():
            centred = product - mean
            covariance.addmm_(centred, centred.T)
        # The covariance with the sum over channels is covariance @ ones; its product with the component gives the sign.
        component = torch.linalg.eigh(covariance.cpu().double())[1][:, -1].to(covariance)
        component *= torch.where(component @ covariance.sum(dim=1) < 0, -1, 1)
        for band, product in products():
            fused[band.top : band.bottom] = (component @ (product - mean)).view(-1, size[1])
    return fused.clamp_(min=0)


class _Band(NamedTuple):
    """Rows `top` to `bottom` of the canvas and what they are made of."""

    top: int
    bottom: int
    rows: list[slice]  # the rows of each scale that lie under the band
    matrix: Tensor  # (bottom - top, all those rows): their weights in the mean over the scales


def _bands(grids: Sequence[tuple[int, int]], canvas: Tensor, band_rows: int) -> Iterator[_Band]:
    height = canvas.shape[0]
    matrices = [_interpolation_matrix(h, height, canvas) / len(grids) for h, _ in grids]
    for top in range(0, height, band_rows):
        bottom = min(top + band_rows, height)
        rows = [_source_rows(h, height, top, bottom) for h, _ in grids]
        matrix = torch.cat([m[top:bottom, source] for m, source in zip(matrices, rows, strict=True)], dim=1)
        yield _Band(top, bottom, rows, matrix)


def _source_rows(length: int, new_length: int, top: int, bottom: int) -> slice:
    """The rows that rows `top` to `bottom` are interpolated from (one more on each side at most)."""
    first = int((top + 0.5) * length / new_length - 0.5)
    last = int((bottom - 0.5) * length / new_length - 0.5) + 1
    return slice(max(0, first), min(length, last + 1))


def _interpolation_matrix(length: int, new_length: int, like: Tensor) -> Tensor:
    """`(new_length, length)`: bilinear resizing along one axis, as `F.interpolate` does it."""
    identity = torch.eye(length, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], size=new_length, mode="linear", align_corners=False)[0].T


def _column_matrices(grids: Sequence[tuple[int, int]], canvas: Tensor) -> list[Tensor]:
    return [_interpolation_matrix(w, canvas.shape[1], canvas).T.contiguous() for _, w in grids]


def _resized_mean(stack: Sequence[Tensor], channels: Tensor, band: _Band, columns: Sequence[Tensor]) -> Tensor:
    """`(channels, band's rows, W)`: the mean over the scales of the resized activations or weights."""
    parts = [x[channels, rows] @ column for x, rows, column in zip(stack, band.rows, columns, strict=True)]
    return band.matrix @ torch.cat(parts, dim=1)


def _contributing_channels(activations: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Indices of the channels that are not zero everywhere (after a ReLU and PGE, many are)."""
    nonzero = [torch.stack([x.flatten(1).any(dim=1) for x in stack]).any(dim=0) for stack in (activations, weights)]
    return (nonzero[0] & nonzero[1]).nonzero().flatten()


def _buffer_elements(canvas: Tensor) -> int:
    return CPU_BUFFER if canvas.device.type == "cpu" else GPU_BUFFER


def _check_stacks(activations: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    shapes = [tuple(x.shape) for x in activations], [tuple(x.shape) for x in weights]
    same_channels = len({shape[0] for shape in shapes[0]}) == 1
    if shapes[0] != shapes[1] or not same_channels or any(len(shape) != 3 for shape in shapes[0]):
        raise ValueError(
            "activations and weights must be one (C, h, w) tensor a scale, in the same shapes, "
            f"got {shapes[0]} and {shapes[1]}"
        )
