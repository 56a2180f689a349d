r"""The gated weights: positive or raw gradients, as the gradient varies over the positions or not. Deprecated.

$$W = v \, P + (1 - v) \, G, \qquad P = \mathrm{ReLU}(G)^2 \, \frac{\sum |G|}{\sum \mathrm{ReLU}(G)^2}$$

where v is the gradient's variation. Where it is 0 the signed gradients keep the evidence against the class; where it is
1 they are mostly noise, which positive weights suppress.

The gate is this project's, not the paper's; `benchmarks/results/squeezenet1_0/gated/README.md` has the study that
settled it, and `benchmarks/results/weightings/README.md` the one that it lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from holistic_cam_plugin.method.variation import gradient_variation, largest_magnitude

__all__ = ["gated_weights"]


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


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum(dim=tuple(range(1, tensor.ndim)), keepdim=True)
