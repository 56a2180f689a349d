r"""Variation of a gradient over the positions, which differs between layers (paper, Fig. 2).

$$v = 1 - \frac{\sum_k \big(\sum_{p} G_{kp}\big)^2 / n_k}{\sum_k \sum_{p} G_{kp}^2}$$

where p are the positions and $n_k$ is the number of positions where the gradient of channel k is not zero, which
ignores positions that a ReLU behind the layer switches off. v is 0 if each channel's gradient is constant (a deep layer
that is pooled next) and close to 1 in shallow layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gradient_variation"]


def gradient_variation(gradients: Tensor) -> Tensor:
    """v, the share of the gradient's energy that is not explained by its mean over the positions.

    Args:
        gradients: G, `(B, C, h, w)`, float32, finite; of volumes `(B, C, d, h, w)`.

    Returns:
        `(B,)`, in [0, 1]; 0 for an image without gradients.
    """
    tiny = torch.finfo(gradients.dtype).tiny
    flat = gradients.flatten(2)
    scaled = flat / flat.abs().amax(dim=(1, 2), keepdim=True).clamp_(min=tiny)
    reached = (scaled != 0).sum(dim=2).clamp_(min=1)
    constant = (scaled.sum(dim=2).square() / reached).sum(dim=1)
    energy = scaled.square().sum(dim=(1, 2))
    return (1 - constant / energy.clamp(min=tiny)).clamp_(0, 1) * (energy > 0)
