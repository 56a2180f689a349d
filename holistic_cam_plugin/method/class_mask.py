r"""The class mask: what the deepest layer's own evidence says of the class, in place of the base scale's map.

$$E = \mathrm{ReLU}\Big(\sum_k \bar A_k \odot (\overline{G^+_k} - \beta \, \overline{G^-_k})\Big), \qquad
\text{map} = \mathrm{norm}\big(M_{PHR} \odot LPW(E)\big)$$

with the activations $A \ge 0$ and the gradients $G = G^+ - G^-$ of the deepest layer, both signs of them, averaged over
the scales as in eq. 10 and 11.

The paper masks every layer's map by the base scale's map of the same layer, because there the model is surest of the
class (eq. 13 to 16). The same holds in depth: the deepest layer is the most class-specific. Where only pooling and one
linear layer follow, $A G$ is what each position adds to the score, and with $\beta = 1$ and one scale, E is HiResCAM's
map. Positions that speak for other classes count against this one, so they are zero in E. In shallow layers the
gradient changes its sign from one position to the next, and the signed sum is noise: E is never made of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holistic_cam_plugin.method.fuse import fuse
from holistic_cam_plugin.method.low_pass_wrap import low_pass_wrap
from holistic_cam_plugin.method.signs import separate_signs

__all__ = ["check_against", "class_evidence", "find_evidence"]


def class_evidence(
    activations: Sequence[Tensor], gradients: Sequence[Tensor], size: tuple[int, ...], against: float = 1.0
) -> NDArray[np.float32]:
    """The evidence for the class in the deepest layer, E, whose low-pass wrap is the class mask.

    Args:
        activations: A_t of the deepest layer, one `(C, h_t, w_t)` tensor per scale, float32, finite; of volumes
            `(C, d_t, h_t, w_t)`.
        gradients: G_t in the same shapes.
        size: `(H, W)` or `(D, H, W)` of the map in pixels.
        against: beta, how much evidence against the class counts, 0 or more. 1: as it is; the sum of A G. Larger values
            separate classes more strictly, and keep less of the object.

    Returns:
        `(H, W)`, float32, never negative, in the units of the score. Zero if nothing speaks for the class.

    Raises:
        TypeError, ValueError: `against` is negative or no number, and as `fuse`.

    Example:
        >>> A, G = torch.ones(1, 1, 2), torch.tensor([[[1.0, -1.0]]])
        >>> class_evidence([A], [G], (1, 2))
        array([[1., 0.]], dtype=float32)
    """
    check_against(against)
    if against == 1:  # the two signs of a channel add up
        fused = fuse(activations, gradients, size)
    else:
        activations, gradients = separate_signs(activations, gradients)
        fused = fuse(activations, [torch.where(g < 0, against * g, g) for g in gradients], size)
    return np.asarray(torch.nan_to_num(fused).cpu().numpy())


def find_evidence(
    activations: Sequence[Tensor],
    gradients: Sequence[Tensor],
    size: tuple[int, ...],
    against: float,
    blur_size: int | None = None,
) -> NDArray[np.float32] | None:
    """The evidence of which a mask is left: with `against`, or with 1 if that leaves none; None if nothing is left.

    A class that is hardly there has little evidence, which a strict `against`, or the mask's median filter, erases.

    Args:
        activations, gradients, size, against: as in `class_evidence`.
        blur_size: as in `low_pass_wrap`.

    Example:
        >>> A, G = torch.ones(1, 8, 8), torch.full((1, 8, 8), -1.0)
        >>> print(find_evidence([A], [G], (64, 64), 1.5))
        None
    """
    for strictness in dict.fromkeys((against, min(against, 1.0))):
        evidence = class_evidence(activations, gradients, size, strictness)
        if evidence.any() and low_pass_wrap(evidence, blur_size).any():
            return evidence
    return None


def check_against(against: float) -> None:
    """Raise TypeError or ValueError unless it is a finite number of at least 0."""
    if isinstance(against, bool) or not isinstance(against, Real):
        raise TypeError(f"against must be a number, got {against!r}")
    if not 0 <= against < math.inf:
        raise ValueError(f"against must be finite and at least 0, got {against}")
