r"""How much a gradient varies over the positions, which the paper's Fig. 2 shows to differ between layers.

$$v = 1 - \frac{\sum_k \big(\sum_{p} G_{kp}\big)^2 / n_k}{\sum_k \sum_{p} G_{kp}^2}$$

where p runs over the positions and $n_k$ counts those of channel k whose gradient is not zero: a ReLU behind the layer
shuts positions off, which says nothing about how the gradient varies where it passes. v is 0 where every channel's
gradient is one constant (a deep layer that is pooled next) and goes to 1 where all of it is variation (a shallow
layer).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gradient_variation", "largest_magnitude"]


def gradient_variation(gradients: Tensor) -> Tensor:
    """v, the share of the gradient's energy that is variation over the positions that it reaches.

    Args:
        gradients: G, `(B, C, h, w)`, float32, finite; of volumes `(B, C, d, h, w)`.

    Returns:
        `(B,)`, in [0, 1]; 0 for an image without gradients.
    """
    scaled = (gradients / largest_magnitude(gradients)).flatten(2)
    reached = (scaled != 0).sum(dim=2).clamp_(min=1)
    constant = (scaled.sum(dim=2).square() / reached).sum(dim=1)
    energy = scaled.square().sum(dim=(1, 2))
    return (1 - constant / energy.clamp(min=torch.finfo(energy.dtype).tiny)).clamp_(0, 1) * (energy > 0)


def largest_magnitude(tensor: Tensor) -> Tensor:
    """The largest magnitude of each image, `(B, 1, 1, 1)`, never 0."""
    tiny = torch.finfo(tensor.dtype).tiny
    return tensor.abs().amax(dim=tuple(range(1, tensor.ndim)), keepdim=True).clamp_(min=tiny)
