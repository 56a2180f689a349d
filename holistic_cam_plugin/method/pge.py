r"""Positive gradient enhancement, PGE (eq. 6 and 8): one weight per element of the activations.

$$W^c = \alpha^c \cdot \mathrm{ReLU}(G^c), \qquad
\alpha^c = \frac{(G^c)^2}{2 (G^c)^2 + (G^c)^3 \cdot S + \epsilon}$$

where $G^c$ is the gradient of the score of class $c$ with respect to the activations $A$, and $S$ is the sum of a
channel's activations over its positions. $\alpha$ is Grad-CAM++'s pixel weight. The paper applies it to every element
instead of summing it to one weight per channel.
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

__all__ = ["positive_gradient_weights"]


def positive_gradient_weights(activations: Tensor, gradients: Tensor, eps: float = 1e-5) -> Tensor:
    """Element-wise positive gradient weights (paper, eq. 6 and 8).

    Args:
        activations: A, `(B, C, h, w)`, float32; of volumes `(B, C, d, h, w)`.
        gradients: G, same shape and dtype.
        eps: more than a guard. Gradients of logits are often smaller than its square root, where W behaves like
            G^3 / eps, which sharpens the map. `eps=0` gives the scale-free limit relu(G) / (2 + relu(G) * S).

    Returns:
        W in the same shape, never negative. If a channel's activations sum to less than 0, S is 0, so that the
        denominator is never negative.

    Raises:
        ValueError: the shapes differ, or `eps` is out of the range of float32.

    Example:
        >>> A, G = torch.ones(1, 1, 1, 2), torch.tensor([[[[0.5, -0.5]]]])
        >>> positive_gradient_weights(A, G, eps=0)
        tensor([[[[0.1667, 0.0000]]]])
    """
    check_eps(eps)
    if activations.shape != gradients.shape:
        raise ValueError(
            "activations and gradients must have the same shape, "
            f"got {tuple(activations.shape)} and {tuple(gradients.shape)}"
        )
    largest = torch.finfo(activations.dtype).max
    positions = tuple(range(2, activations.ndim))
    total = activations.sum(dim=positions, keepdim=True).clamp_(0, largest)
    # alpha * relu(G) with numerator and denominator divided by G^2: G / (2 + G * S + eps / G^2). Where G^2 and G^3
    # would underflow, it overflows to the right limit; eps = 0 and G = 0 are no special cases.
    weights = gradients.clamp(min=0)
    denominator = (weights * total).add_(2)
    if eps > 0:
        denominator.add_(weights.square().reciprocal_(), alpha=float(eps))
    return weights.div_(denominator)


def check_eps(eps: float) -> None:
    """Raise ValueError unless `eps` is 0 or a positive number within the range of float32."""
    limits = torch.finfo(torch.float32)
    if isinstance(eps, bool) or not isinstance(eps, Real) or not (eps == 0 or limits.tiny <= eps <= limits.max):
        raise ValueError(f"eps must be 0 or between {limits.tiny:.2g} and {limits.max:.2g}, got {eps!r}")
