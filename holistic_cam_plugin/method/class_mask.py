r"""The class mask: what the deepest layer's own evidence says of the class, in place of the base scale's map.

$$S = \sum_k \bar A_k \odot \bar G_k, \qquad
E = \mathrm{ReLU}(S) \odot \Big(\frac{\mathrm{ReLU}(S)}{\sum_k \overline{|A_k|} \odot \overline{|G_k|}}\Big)^\gamma,$$
$$\text{map} = \mathrm{norm}\big(M_{PHR} \odot LPW(E)\big)$$

with activations A and gradients G of the deepest layer, averaged over the scales as in eq. 10 and 11.

The paper masks every layer's map by the base scale's map of the same layer, because there the model is surest of the
class (eq. 13 to 16). The same holds in depth: the deepest layer is the most class-specific. Where only pooling and one
linear layer follow, $A G$ is what each position adds to the score, so E is zero where that lowers it; with $\gamma = 0$
and one scale, E is HiResCAM's map. In shallow layers the gradient changes its sign from one position to the next, and
the signed sum is noise: E is never made of them.

The factor with $\gamma$ is the net share of the evidence, in [0, 1]: what is left of all evidence, for and against,
when both are added up. Where several objects share features, as all animals do, evidence for the class meets evidence
against it, and the share is small on the wrong object. It has no units, so the mask does not depend on the scale of the
logits.
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

__all__ = ["check_contrast", "class_evidence"]


def class_evidence(
    activations: Sequence[Tensor], gradients: Sequence[Tensor], size: tuple[int, ...], contrast: float = 0.0
) -> NDArray[np.float32]:
    """The evidence for the class in the deepest layer, E, whose low-pass wrap is the class mask.

    Args:
        activations: A_t of the deepest layer, one `(C, h_t, w_t)` tensor per scale, float32, finite; of volumes
            `(C, d_t, h_t, w_t)`.
        gradients: G_t in the same shapes.
        size: `(H, W)` or `(D, H, W)` of the map in pixels.
        contrast: gamma, the exponent of the evidence's net share, 0 or more. Larger values separate classes more
            strictly, and keep less of the object.

    Returns:
        `(H, W)`, float32, never negative, in the units of the score. Zero if nothing speaks for the class.

    Raises:
        TypeError, ValueError: `contrast` is negative or no number, and as `fuse`.

    Example:
        >>> A, G = torch.ones(2, 1, 2), torch.tensor([[[3.0, -3.0]], [[-1.0, 1.0]]])
        >>> class_evidence([A], [G], (1, 2)), class_evidence([A], [G], (1, 2), contrast=1)
        (array([[2., 0.]], dtype=float32), array([[1., 0.]], dtype=float32))
    """
    check_contrast(contrast)
    evidence = fuse(activations, gradients, size)
    if contrast > 0:
        total = fuse([a.abs() for a in activations], [g.abs() for g in gradients], size)
        share = evidence / total.clamp(min=torch.finfo(total.dtype).tiny)
        evidence = evidence * share.clamp(max=1) ** contrast
    return np.asarray(torch.nan_to_num(evidence).cpu().numpy())


def check_contrast(contrast: float) -> None:
    """Raise TypeError or ValueError unless it is a finite number of at least 0."""
    if isinstance(contrast, bool) or not isinstance(contrast, Real):
        raise TypeError(f"contrast must be a number, got {contrast!r}")
    if not 0 <= contrast < math.inf:
        raise ValueError(f"contrast must be finite and at least 0, got {contrast}")
