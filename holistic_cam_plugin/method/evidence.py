r"""Evidence: positive gradients free of any scale, and in deep layers their share in all the evidence.

The gradient shrinks with a scale's number of positions $n_t$; scale t gives the weights $\sqrt{n_t}\, G_t$. Fused as in
eq. 10-12, with positive and negative parts as channels of their own, they are the evidence for and against the class:

$$P = \sum_k \bar A^+_k \bar W^+_k + \bar A^-_k \bar W^-_k, \qquad
N = \sum_k \bar A^+_k \bar W^-_k + \bar A^-_k \bar W^+_k, \qquad
M = P \left( \frac{P}{P + N} \right)^{1 - v}$$

where bars are means over the scales on the canvas, and v is the variation of the base scale's gradient: in shallow
layers, where it is 1, the map is P; in a deep layer that is pooled next, where it is 0, P counts as far as nothing
speaks against the class there, which tells objects apart. Multiplying the logits by a constant changes nothing, nor
does negating a channel.

The two sums are computed without splitting a channel, as half of the sum and half of the difference of

$$E = \sum_k \overline{|A_k|}\, \overline{|W_k|}, \qquad D = \sum_k \bar A_k \bar W_k$$

It is this project's, not the paper's; `benchmarks/results/weightings/README.md` has the study that chose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from holistic_cam_plugin.method.fuse import fuse, fuse_principal
from holistic_cam_plugin.method.signs import split_signs
from holistic_cam_plugin.method.variation import gradient_variation

__all__ = ["evidence", "fuse_evidence", "scaled_gradients"]


def scaled_gradients(activations: Tensor, gradients: Tensor, eps: float = 0.0) -> Tensor:
    """The gradients times the root of the number of positions.

    Args:
        activations, gradients: A and G, `(B, C, h, w)`, float32; of volumes `(B, C, d, h, w)`.
        eps: accepted as of any weighting, and not used.

    Returns:
        W in the same shape, of both signs.
    """
    return gradients * math.sqrt(math.prod(gradients.shape[2:]))


def evidence(activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The evidence for the class and that against it, P and N.

    Args, raises: as `fuse`, with weights of both signs.

    Returns:
        Two maps of the canvas's size, float32, never negative, in the product's units.
    """
    difference = fuse(activations, weights, size, relu=False)
    total = fuse([a.abs() for a in activations], [w.abs() for w in weights], size)
    return ((total + difference) / 2).clamp_(min=0), ((total - difference) / 2).clamp_(min=0)


def fuse_evidence(
    activations: Sequence[Tensor], weights: Sequence[Tensor], size: tuple[int, ...], principal: bool = False
) -> Tensor:
    """The map M.

    Args, raises: as `evidence`; with `principal` the first principal component of the evidence for the class.

    Returns:
        A map of the canvas's size, float32, never negative, in the product's units.
    """
    if principal:
        return fuse_principal(*split_signs(activations, weights), size)
    positive, negative = evidence(activations, weights, size)
    share = positive / (positive + negative).clamp_(min=torch.finfo(positive.dtype).tiny)
    return positive.mul_(share.pow_(1 - gradient_variation(weights[0][None])))
