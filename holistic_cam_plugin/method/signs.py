r"""Signed activations: the two signs of a channel are two channels.

After a ReLU, where the paper's layers are, evidence for the class is an activation $A > 0$ with a gradient $G > 0$. In
linear bottlenecks, residual streams and transformers, activations have both signs, and $A < 0$ with $G < 0$ is evidence
too, about half of it. So such a layer is treated as 2C channels

$$[A^+, A^-] \text{ with the gradients } [G, -G], \qquad A^+ = \mathrm{ReLU}(A), \quad A^- = \mathrm{ReLU}(-A)$$

Where $A \ge 0$, this is the paper's method. Negating a channel, which is a convention of the network, changes nothing.

Positive weights are zero where their gradient is not positive. The weights of both signs therefore share one tensor,
$W = W^+ - W^-$, until the scales are fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["signed_weights", "split_signs"]

Weigh = Callable[[Tensor, Tensor, float], Tensor]


def signed_weights(weigh: Weigh, activations: Tensor, gradients: Tensor, eps: float = 1e-5) -> Tensor:
    """Weights of both signs in one tensor.

    Args:
        weigh: computes positive weights from activations that are not negative, their gradients and eps; zero where the
            gradient is not positive.
        activations: A of one image, `(C, h, w)`, float32; of volumes `(C, d, h, w)`.
        gradients: G in the same shape.
        eps: passed on to `weigh`.

    Returns:
        W+ - W- in the same shape; W+ if no activation is negative.

    Example:
        >>> A, G = torch.tensor([[[2.0, -2.0, -2.0]]]), torch.tensor([[[1.0, -3.0, 1.0]]])
        >>> signed_weights(lambda a, g, eps: g.clamp(min=0), A, G)
        tensor([[[ 1., -3.,  1.]]])
    """
    if not _has_negative([activations]):
        return weigh(activations, gradients, eps)
    positive = weigh(activations.clamp(min=0), gradients, eps)
    return positive.sub_(weigh(activations.neg().clamp_(min=0), -gradients, eps))


def split_signs(activations: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Split activations and weights into channels of one sign each: `[A+, A-]` and `[W+, W-]`.

    Args:
        activations: A_t, one `(C, h_t, w_t)` tensor per scale.
        weights: W+ - W- in the same shapes.

    Returns:
        `(2C, h_t, w_t)` tensors; the arguments, if no activation is negative at any scale.

    Example:
        >>> (A,), (W,) = split_signs([torch.tensor([[[2.0, -5.0]]])], [torch.tensor([[[1.0, -3.0]]])])
        >>> A.flatten(1), W.flatten(1)
        (tensor([[2., 0.],
                [0., 5.]]), tensor([[1., 0.],
                [0., 3.]]))
    """
    if _has_negative(activations):
        return _split(activations), _split(weights)
    return list(activations), list(weights)


def _has_negative(tensors: Sequence[Tensor]) -> bool:
    # `amin` reads the memory in order: for channels-last tensors it is 70 times as fast as `min`.
    return bool((torch.stack([tensor.amin() for tensor in tensors]) < 0).any())


def _split(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat([tensor.clamp(min=0), tensor.neg().clamp_(min=0)]) for tensor in tensors]
