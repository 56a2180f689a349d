r"""What can weigh the activations: the paper's positive gradients, the raw ones, or a gate between the two kinds.

The paper motivates positive, element-wise weights by the variance of a channel's gradient over the positions (its
Fig. 2). The gate measures it and chooses:

$$v = 1 - \frac{\sum_k \big(\sum_{p} G_{kp}\big)^2 / n_k}{\sum_k \sum_{p} G_{kp}^2}, \qquad
W = v \, P + (1 - v) \, G, \qquad P = \mathrm{ReLU}(G)^2 \, \frac{\sum |G|}{\sum \mathrm{ReLU}(G)^2}$$

where p runs over the positions and $n_k$ counts those of channel k whose gradient is not zero: a ReLU behind the layer
shuts positions off, which says nothing about how the gradient varies where it passes. v is 0 where every channel's
gradient is one constant (a deep layer that is pooled next) and goes to 1 where all of it is variation (a shallow
layer). In the first case the signed gradients keep the evidence against the class, which tells objects apart; in the
second they are mostly noise, which positive weights suppress. The square does so in the same way whatever the
gradient's scale, where PGE with the paper's constant is a cube for small gradients and linear for large ones.

The gate is this project's, not the paper's; `benchmarks/README.md` has the study that settled it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from holistic_cam_plugin.method.low_pass_wrap import KSIZE_AT_224
from holistic_cam_plugin.method.pge import positive_gradient_weights
from holistic_cam_plugin.method.signs import signed_weights

__all__ = ["WEIGHTINGS", "Weighting", "gated_weights", "gradient_variation", "largest_magnitude", "weighting_by_name"]


class Weighting(NamedTuple):
    """How activations are weighed, with the mask that goes with it.

    Attributes:
        name: the user's word for it.
        weigh: makes the weights of one scale, `(B, C, h, w)`, of its activations and gradients in this shape, and eps.
        ksize_at_224: the mask's box filter in pixels at 224 px.
        mask_power: the mask's exponent.
        splits: whether the two signs of activations are channels of their own (`split_signs`). Raw gradients are linear
            in the activations: there it makes no difference.
    """

    name: str
    weigh: Callable[[Tensor, Tensor, float], Tensor]
    ksize_at_224: int = KSIZE_AT_224
    mask_power: float = 1.0
    splits: bool = True

    def weights(self, activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
        """The weights of one scale in the activations' shape; those of both signs in one tensor, W+ - W-."""
        if not self.splits:
            return self.weigh(activations, gradients, eps)
        return signed_weights(lambda a, g: self.weigh(a, g, eps), activations, gradients)


def gated_weights(gradients: Tensor) -> Tensor:
    """Squared positive gradients as far as the gradient varies over the positions, raw ones as far as it does not.

    Args:
        gradients: G, `(B, C, h, w)`, float32, finite; of volumes `(B, C, d, h, w)`.

    Returns:
        W in the same shape, signed, in the units of G.
    """
    unit = largest_magnitude(gradients)
    scaled = gradients / unit
    variation = gradient_variation(scaled).view(unit.shape)
    positive = scaled.clamp(min=0).square_()
    share = torch.nan_to_num(_sum(scaled.abs()) / _sum(positive), nan=0.0, posinf=0.0)  # 0: nothing is positive
    return positive.mul_(share * variation).add_(scaled.mul_(1 - variation)).mul_(unit)


def gradient_variation(gradients: Tensor) -> Tensor:
    """v, the share of the gradient's energy that is variation over the positions that it reaches.

    Args:
        gradients: G as in `gated_weights`.

    Returns:
        `(B,)`, in [0, 1]; 0 for an image without gradients.
    """
    scaled = (gradients / largest_magnitude(gradients)).flatten(2)
    reached = (scaled != 0).sum(dim=2).clamp_(min=1)
    constant = (scaled.sum(dim=2).square() / reached).sum(dim=1)
    energy = scaled.square().sum(dim=(1, 2))
    return (1 - constant / energy.clamp(min=torch.finfo(energy.dtype).tiny)).clamp_(0, 1) * (energy > 0)


def weighting_by_name(name: str) -> Weighting:
    """The weighting of this name; ValueError if there is none."""
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(map(repr, WEIGHTINGS))}, got {name!r}")
    return WEIGHTINGS[name]


def largest_magnitude(tensor: Tensor) -> Tensor:
    """The largest magnitude of each image, `(B, 1, 1, 1)`, never 0."""
    tiny = torch.finfo(tensor.dtype).tiny
    return tensor.abs().amax(dim=tuple(range(1, tensor.ndim)), keepdim=True).clamp_(min=tiny)


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum(dim=tuple(range(1, tensor.ndim)), keepdim=True)


WEIGHTINGS = {
    weighting.name: weighting
    for weighting in (
        Weighting("pge", positive_gradient_weights),
        # The tight mask was chosen with the gate: benchmarks/results.
        Weighting("gated", lambda activations, gradients, eps: gated_weights(gradients), 31, 4.0, splits=False),
        Weighting("gradient", lambda activations, gradients, eps: gradients, splits=False),
    )
}
