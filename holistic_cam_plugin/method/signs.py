r"""Signed activations: the two signs of a channel are channels of their own.

After a ReLU, where the paper's layers are, evidence for the class is an activation $A > 0$ with a gradient $G > 0$. In
linear bottlenecks, residual streams and transformers activations have both signs, and $A < 0$ with $G < 0$ is evidence
too: about half of it. So such a layer is taken as the 2C channels

$$[A^+, A^-] \text{ with the gradients } [G, -G], \qquad A^+ = \mathrm{ReLU}(A), \quad A^- = \mathrm{ReLU}(-A)$$

and everything goes on as the paper writes it. Where $A \ge 0$ nothing changes. Whether a channel is negated, which is a
convention of the network, makes no difference.

Positive weights are zero where their gradient is not positive, so those of the two signs share one tensor,
$W = W^+ - W^-$, until the scales are fused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["signed_weights", "split_signs"]


def signed_weights(weigh: Callable[[Tensor, Tensor], Tensor], activations: Tensor, gradients: Tensor) -> Tensor:
    """The weights of both signs in one tensor.

    Args:
        weigh: makes positive weights of activations of one sign and their gradients; zero where these are not positive.
        activations: A, `(B, C, h, w)`, float32; of volumes `(B, C, d, h, w)`.
        gradients: G in the same shape.

    Returns:
        W+ - W- in the same shape: of an image without negative activations W+, whatever lies in the batch beside it.
    """
    signed = (_lowest(activations) < 0).tolist()  # of each image; one look at the memory for all
    if not any(signed):
        return weigh(activations, gradients)
    positive = weigh(activations.clamp(min=0), gradients)
    negative = weigh(activations.neg().clamp_(min=0), -gradients)
    for weights, has_negatives in zip(negative, signed, strict=True):
        if not has_negatives:
            weights.zero_()
    return positive.sub_(negative)


def split_signs(activations: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Both signs as channels of their own, for fusion: `[A+, A-]` and `[W+, W-]`.

    Args:
        activations: A_t, one `(C, h_t, w_t)` tensor a scale.
        weights: W+ - W- in the same shapes.

    Returns:
        `(2C, h_t, w_t)` tensors; the activations as they are, and W+, if none of them is negative at any scale.
    """
    if bool((_lowest(activations) < 0).any()):
        return _both(activations), _both(weights)
    return list(activations), list(weights)


def _lowest(tensors: Iterable[Tensor]) -> Tensor:
    """The lowest value of each."""
    # `amin` takes the memory as it lies: with the channels last it is 70 times as fast as `min`.
    return torch.stack([tensor.amin() for tensor in tensors])


def _both(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat([tensor.clamp(min=0), tensor.neg().clamp_(min=0)]) for tensor in tensors]
