r"""Multi-scale fusion (eq. 10 to 12): activations and weights of all scales become one map.

$$\bar A = \frac1T \sum_t \mathrm{resize}(A_t), \quad \bar W = \frac1T \sum_t \mathrm{resize}(W_t), \quad
M_{PHR} = \mathrm{ReLU}\Big(\sum_k \bar W_k \odot \bar A_k\Big)$$

where `resize` is bilinear to the canvas, the input's height and width (trilinear for volumes), and k runs over the
channels. The map is a product of means, not a mean of products. `resizing.py` computes the means; `blocks.py` has a
faster way for coarse grids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from holistic_cam_plugin.method.blocks import are_coarse, fuse_blocks
from holistic_cam_plugin.method.resizing import find_nonzero, resize_means

__all__ = ["fuse", "fuse_principal"]


@torch.no_grad()
def fuse(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """The primary high-resolution map M_PHR (paper, eq. 10 to 12); of the base scale alone, the base map M0 (eq. 13).

    Args:
        activations: A_t, one `(C, h_t, w_t)` tensor per scale, float32, finite; of volumes `(C, d_t, h_t, w_t)`.
            Channels-last tensors are fastest.
        weights: W_t in the same shapes.
        size: `(H, W)` or `(D, H, W)` of the canvas in pixels.

    Returns:
        A map of this size, float32, never negative, in the units of the product (not scaled to [0, 1]).

    Raises:
        ValueError: no scale at all, or shapes that do not belong together.

    Example:
        >>> scales = [torch.ones(8, 7, 7), torch.ones(8, 14, 14)]
        >>> fuse(scales, scales, (28, 28)).max()
        tensor(8.)
    """
    _check_stacks(activations, weights, size)
    primary_map = activations[0].new_zeros(size)
    with torch.autocast(primary_map.device.type, enabled=False):
        if are_coarse(activations, size):
            return fuse_blocks(activations, weights, size).clamp_(min=0)
        for part, mean_a, mean_w in resize_means(activations, weights, size, skip_zeros=True):  # eq. 10, 11
            primary_map[part] = mean_a.mul_(mean_w).sum(dim=1).view(-1, size[-1])
    return primary_map.clamp_(min=0)  # eq. 12


@torch.no_grad()
def fuse_principal(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """`fuse` with the sum over channels replaced by their first principal component (`eigen_smooth`).

    pytorch-grad-cam decomposes the whole `(H * W, C)` matrix. The covariance of the channels, collected band by band,
    has the same first component in C^2 elements. The sign of an eigenvector is arbitrary: the component is the one that
    correlates positively with the sum over channels.

    Args, returns and raises as in `fuse`.

    Example:
        >>> A, W = torch.rand(8, 7, 7), torch.rand(8, 7, 7)
        >>> fuse_principal([A], [W], (28, 28)).shape
        torch.Size([28, 28])
    """
    _check_stacks(activations, weights, size)
    primary_map = activations[0].new_zeros(size)
    with torch.autocast(primary_map.device.type, enabled=False):
        channels = find_nonzero([[x.flatten(1).T for x in stack] for stack in (activations, weights)])
        if not channels.any():
            return primary_map
        # Weights of 1e-10 are common and their squares would vanish; the component does not depend on the units.
        activations, weights = (_to_units([x[channels] for x in stack]) for stack in (activations, weights))
        mean = primary_map.new_zeros(len(activations[0]))
        for _, mean_a, mean_w in resize_means(activations, weights, size):
            mean += mean_a.mul_(mean_w).sum(dim=0) / primary_map.numel()
        covariance = primary_map.new_zeros(len(mean), len(mean))
        for _, mean_a, mean_w in resize_means(activations, weights, size):
            centred = mean_a.mul_(mean_w) - mean
            covariance.addmm_(centred.T, centred)
        # The covariance with the sum over channels is covariance @ ones; its product with the component gives the sign.
        component = torch.linalg.eigh(covariance.cpu().double())[1][:, -1].to(covariance)
        component *= torch.where(component @ covariance.sum(dim=1) < 0, -1, 1)
        for part, mean_a, mean_w in resize_means(activations, weights, size):
            primary_map[part] = ((mean_a.mul_(mean_w) - mean) @ component).view(-1, size[-1])
    return primary_map.clamp_(min=0)


def _to_units(stack: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in units of their largest magnitude."""
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
            "activations and weights must be one (C, h, w) tensor per scale for a canvas (H, W), or (C, d, h, w) for "
            f"(D, H, W), in the same shapes; got {shapes[0]} and {shapes[1]} for {tuple(size)}"
        )
