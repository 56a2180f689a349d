r"""Multi-scale fusion (eq. 10-12): activations and weights of all the scales become one map.

$$\bar A = \frac1T \sum_t \mathrm{resize}(A_t), \quad \bar W = \frac1T \sum_t \mathrm{resize}(W_t), \quad
M_{PHR} = \mathrm{ReLU}\Big(\sum_k \bar W_k \odot \bar A_k\Big)$$

where `resize` is bilinear to the canvas, the input's height and width (trilinear for volumes), and k runs over the
channels: a product of means, not a mean of products.

Bilinear resizing reads two elements along each axis. With a scale's positions as the rows of a table and the channels
along them, the resized mean is made of weighted sums of table rows, which is what an embedding bag is: first along the
canvas's rows, then along its columns for all the scales at once, a band of the canvas at a time. Nothing of the size
of channels x canvas ever exists, and the processor's vectors run along the channels, the order of `channels_last`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fuse", "fuse_principal"]

# Elements of one band, 8 MB of float32 on a CPU: what stays in the cache between two passes. A GPU wants large calls.
CPU_BAND = 2**21
GPU_BAND = 2**25


@torch.no_grad()
def fuse(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """The primary high-resolution map M_PHR (paper, eq. 10-12); of one scale alone, the base map M0 (eq. 13).

    Args:
        activations: A_t, one `(C, h_t, w_t)` a scale, float32, finite; quickest with the channels last in memory. Of
            volumes `(C, d_t, h_t, w_t)`.
        weights: W_t in the same shapes.
        size: `(H, W)` or `(D, H, W)` of the canvas in pixels.

    Returns:
        A map of this size, float32, never negative, in the product's own units (not scaled to [0, 1]).

    Raises:
        ValueError: no scale at all, or shapes that do not belong together.
    """
    _check_stacks(activations, weights, size)
    fused = activations[0].new_zeros(size)
    with torch.autocast(fused.device.type, enabled=False):
        for part, products in _canvas(activations, weights, size, sparse=True):
            fused[part] = products.sum(dim=1).view(-1, size[-1])
    return fused.clamp_(min=0)


@torch.no_grad()
def fuse_principal(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """`fuse` with the sum over channels replaced by their first principal component (`eigen_smooth`).

    The library decomposes the whole `(H * W, C)` matrix. The covariance of the channels, gathered band by band, has
    the same first component in C^2 elements. An eigenvector's sign is arbitrary: here it is the one that correlates
    positively with the sum over channels.

    Args, returns and raises as `fuse`.
    """
    _check_stacks(activations, weights, size)
    fused = activations[0].new_zeros(size)
    with torch.autocast(fused.device.type, enabled=False):
        channels = _nonzero([[x.flatten(1).T for x in stack] for stack in (activations, weights)])
        if not channels.any():
            return fused
        # Weights of 1e-10 are common and their squares would vanish; the component does not depend on the units.
        activations, weights = (_in_units([x[channels] for x in stack]) for stack in (activations, weights))
        mean = fused.new_zeros(len(activations[0]))
        for _, products in _canvas(activations, weights, size):
            mean += products.sum(dim=0) / fused.numel()
        covariance = fused.new_zeros(len(mean), len(mean))
        for _, products in _canvas(activations, weights, size):
            centred = products - mean
            covariance.addmm_(centred.T, centred)
        # The covariance with the sum over channels is covariance @ ones; its product with the component gives the sign.
        component = torch.linalg.eigh(covariance.cpu().double())[1][:, -1].to(covariance)
        component *= torch.where(component @ covariance.sum(dim=1) < 0, -1, 1)
        for part, products in _canvas(activations, weights, size):
            fused[part] = ((products - mean) @ component).view(-1, size[-1])
    return fused.clamp_(min=0)


def _canvas(
    activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...], sparse: bool = False
) -> Iterator[tuple[tuple[int | slice, ...], Tensor]]:
    """The products of the means all over the canvas: where each part lies, and its positions `(rows * W, C)`.

    Args:
        sparse: leave out channels that are zero, in deep layers: elsewhere looking takes longer than it saves.
    """
    resizing = _Resizing.of(activations, (size[-2], size[-1]))
    for plane, stacks in _planes(activations, weights, size):
        tables = [[_table(x) for x in stack] for stack in stacks]
        channels = len(activations[0])
        if sparse and sum(map(len, tables[0])) < size[-2] * size[-1]:
            tables, channels = _present(tables)
        for band in resizing.bands(channels) if channels else ():
            yield (*plane, band), resizing.mean(tables[0], band).mul_(resizing.mean(tables[1], band))


def _planes(
    activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], list[list[Tensor]]]]:
    """The slices of the canvas, and what is resized to each: trilinear is linear between slices, bilinear within."""
    stacks = [list(activations), list(weights)]
    if len(size) == 2:
        yield (), stacks
        return
    taps = [zip(*(t.tolist() for t in _taps(x.shape[1], size[0], x)), strict=True) for x in activations]
    for z, shares in enumerate(zip(*taps, strict=True)):
        yield (
            (z,),
            [
                [x[:, lower] * a + x[:, upper] * b for x, ((lower, upper), (a, b)) in zip(stack, shares, strict=True)]
                for stack in stacks
            ],
        )


class _Resizing(NamedTuple):
    """What bilinear resizing of T scales to the canvas reads, and with which share in the mean.

    N columns are those of all the scales side by side.
    """

    rows: list[Tensor]  # of each scale, (H, 2): the two rows that a canvas row reads
    row_shares: list[Tensor]  # of each scale, (H, 2)
    widths: list[int]  # w_t
    columns: Tensor  # (W, 2 T): the columns that a canvas column reads
    column_shares: Tensor  # (W, 2 T)

    @classmethod
    def of(cls, stack: Sequence[Tensor], size: tuple[int, int]) -> _Resizing:
        rows = [_taps(x.shape[-2], size[0], x) for x in stack]
        columns = [_taps(x.shape[-1], size[1], x) for x in stack]
        widths = [x.shape[-1] for x in stack]
        firsts = accumulate([0, *widths])  # a scale's first column among the N
        return cls(
            [indices for indices, _ in rows],
            [shares / len(stack) for _, shares in rows],
            widths,
            torch.cat([first + indices for first, (indices, _) in zip(firsts, columns, strict=False)], dim=1),
            torch.cat([shares for _, shares in columns], dim=1),
        )

    def bands(self, channels: int) -> Iterator[slice]:
        """The canvas's rows, as many at a time as fill a band."""
        height = len(self.rows[0])
        elements = CPU_BAND if self.columns.device.type == "cpu" else GPU_BAND
        band = max(1, elements // max(1, channels * max(sum(self.widths), len(self.columns))))
        for first in range(0, height, band):
            yield slice(first, min(first + band, height))

    def mean(self, tables: Sequence[Tensor], band: slice) -> Tensor:
        """The resized scales' mean in a band of canvas rows, `(rows * W, C)`."""
        parts = []
        for table, rows, shares, width in zip(tables, self.rows, self.row_shares, self.widths, strict=True):
            places = torch.arange(width, dtype=torch.int32, device=table.device)[:, None]
            indices = rows[band, None] * width + places
            parts.append(_weighted_sums(table, indices, shares[band, None].expand_as(indices)))
        resized = torch.cat(parts, dim=1)  # (rows, N, C)
        firsts = torch.arange(len(resized), dtype=torch.int32, device=resized.device) * resized.shape[1]
        indices = firsts[:, None, None] + self.columns
        return _weighted_sums(resized.flatten(0, 1), indices, self.column_shares.expand_as(indices)).flatten(0, 1)


def _weighted_sums(table: Tensor, indices: Tensor, shares: Tensor) -> Tensor:
    """Sums of table rows, `(..., C)`, for indices and shares `(..., taps)`."""
    taps = indices.shape[-1]
    sums = F.embedding_bag(indices.reshape(-1, taps), table, per_sample_weights=shares.reshape(-1, taps), mode="sum")
    return sums.view(*indices.shape[:-1], -1)


def _taps(length: int, new_length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The two elements that each new one is interpolated from and their shares, `(new_length, 2)` both.

    As `F.interpolate` has it with `align_corners=False`: half-pixel centres, the border repeated.
    """
    centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) * (length / new_length) - 0.5
    centres.clamp_(0, length - 1)
    lower = centres.long()
    upper = (lower + 1).clamp_(max=length - 1)
    share = centres - lower
    indices = torch.stack([lower, upper], dim=1).to(like.device, torch.int32)
    return indices, torch.stack([1 - share, share], dim=1).to(like)


def _table(maps: Tensor) -> Tensor:
    """The positions of `(C, h, w)` maps as rows, `(h w, C)`: no copy where the channels lie last in memory."""
    return maps.flatten(1).T.contiguous()


def _present(tables: Sequence[Sequence[Tensor]]) -> tuple[list[list[Tensor]], int]:
    """Copies of the tables without the channels that are zero everywhere, of which PGE makes many; and their number."""
    channels = _nonzero(tables).nonzero().flatten()
    return [[table.index_select(1, channels) for table in stack] for stack in tables], len(channels)


def _nonzero(tables: Sequence[Sequence[Tensor]]) -> Tensor:
    """Which channels are not zero everywhere, neither their activations nor their weights, `(C,)`."""
    nonzero = [torch.stack([table.any(dim=0) for table in stack]).any(dim=0) for stack in tables]
    return nonzero[0] & nonzero[1]


def _in_units(stack: Sequence[Tensor]) -> list[Tensor]:
    """A stack in units of its largest magnitude."""
    unit = torch.stack([x.abs().amax() for x in stack]).amax()
    return [x / unit for x in stack]


def _check_stacks(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]) -> None:
    shapes = [tuple(x.shape) for x in activations], [tuple(x.shape) for x in weights]
    same_channels = len({shape[0] for shape in shapes[0]}) == 1
    if (
        shapes[0] != shapes[1]
        or not same_channels
        or len(size) not in (2, 3)
        or any(len(shape) != 1 + len(size) for shape in shapes[0])
    ):
        raise ValueError(
            "activations and weights must be one (C, h, w) tensor a scale for a canvas (H, W), or (C, d, h, w) for "
            f"(D, H, W), in the same shapes; got {shapes[0]} and {shapes[1]} for {tuple(size)}"
        )
