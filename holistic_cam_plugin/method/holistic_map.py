r"""Holistic-CAM in one function (paper, eq. 8 and 10 to 17): activations and gradients of all scales become a map.

$$W_t = \mathrm{PGE}(A_t, G_t), \qquad
M_{PHR} = \mathrm{ReLU}\Big(\sum_k \bar W_k \odot \bar A_k\Big), \qquad
\text{Holistic-CAM} = \mathrm{norm}\big(M_{PHR} \odot LPW(M_0)\big)$$
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holistic_cam_plugin.method.fuse import fuse, fuse_principal
from holistic_cam_plugin.method.intermediates import Intermediates
from holistic_cam_plugin.method.low_pass_wrap import denoising_mask
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.method.signs import split_signs
from holistic_cam_plugin.method.weighting import find_weighting

__all__ = ["holistic_map"]


def holistic_map(
    activations: Sequence[Tensor],
    gradients: Iterable[Tensor],
    size: tuple[int, ...],
    *,
    weighting: str = "pge",
    eps: float = 1e-5,
    fsd: bool = True,
    blur_size: int | None = None,
    ksize: int | None = None,
    eigen_smooth: bool = False,
    by_positions: bool = False,
    fuse_base: bool = True,
    evidence: NDArray[np.float32] | None = None,
) -> Intermediates:
    """The map of one image, target and layer, with the results of every step.

    Args:
        activations: A_t, one `(C, h_t, w_t)` tensor per scale, the base scale first; float32, finite. Of volumes
            `(C, d_t, h_t, w_t)`.
        gradients: G_t, of the target's score with respect to A_t, in the same shapes. Each is used once, so an iterator
            that gives them away saves their memory.
        size: `(H, W)` or `(D, H, W)` of the map in pixels.
        weighting: `"pge"`, `"positive"` or `"gradient"`, as in `HolisticCAM`.
        eps: the constant of eq. 8; used by `"pge"` only.
        fsd: apply the mask (eq. 13 to 16).
        blur_size, ksize: windows of the mask's filters, as in `low_pass_wrap`.
        eigen_smooth: use the first principal component over the channels in place of their sum in eq. 12.
        by_positions: multiply the weights of every scale by its number of positions before they are averaged, up to a
            constant. Gradients of a pooled layer shrink with that number.
        fuse_base: if False, leave the base scale out of the means (eq. 10 and 11), unless it is the only one.
        evidence: the map that the mask is made of in place of the base scale's, `(H, W)` (see `class_evidence`).

    Returns:
        The results; `saliency_map` is `(H, W)`, float32, in [0, 1].

    Raises:
        ValueError: an unknown weighting, or shapes that do not belong together.

    Example:
        >>> activations = [torch.rand(8, 7, 7), torch.rand(8, 14, 14)]
        >>> gradients = [torch.randn(8, 7, 7), torch.randn(8, 14, 14)]
        >>> holistic_map(activations, gradients, (112, 112)).saliency_map.shape
        (112, 112)
    """
    weigh, signed = find_weighting(weighting)
    most = max(a[0].numel() for a in activations)
    shares = [a[0].numel() / most if by_positions else 1 for a in activations]
    weights = [  # eq. 8
        weigh(a, g, eps) if share == 1 else weigh(a, g, eps) * share
        for a, g, share in zip(activations, gradients, shares, strict=True)
    ]

    def combine(scales: slice, smooth: bool) -> NDArray[np.float32]:
        stacks = (activations[scales], weights[scales])
        fused = (fuse_principal if smooth else fuse)(*(split_signs(*stacks) if signed else stacks), size)
        return np.asarray(torch.nan_to_num(fused).cpu().numpy())

    primary_map = combine(slice(0 if fuse_base or len(weights) == 1 else 1, None), eigen_smooth)  # eq. 10 to 12
    if not fsd:
        return Intermediates(list(activations), weights, primary_map, None, None, min_max_normalize(primary_map))
    base_map = combine(slice(1), False) if evidence is None else evidence  # eq. 13
    mask = denoising_mask(base_map, blur_size, ksize)  # eq. 13 to 15
    saliency_map = min_max_normalize(primary_map.astype(np.float64) * mask)  # eq. 16, 17
    return Intermediates(list(activations), weights, primary_map, base_map, mask, saliency_map)
