r"""What weighs the activations, by name: each with the fusion and the mask that go with it.

* `pge`, the paper's: $W = \alpha \, \mathrm{ReLU}(G)$ with Grad-CAM++'s pixel weight $\alpha$ (eq. 6 and 8). Where
  gradients are small it is $G^3 / \epsilon$: sharp, and dependent on the scale of the logits.
* `positive`: $W = \mathrm{ReLU}(G)$, the positive gradients as they are; all the rest is the paper's. Multiplying the
  logits by a constant changes nothing, and the map shows the object instead of its strongest points.
  `benchmarks/results/weightings/README.md` has the study that chose it.
* `gradient`: $W = G$, the ablation without PGE.
* `gated`: deprecated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from holistic_cam_plugin.method.fuse import fuse, fuse_principal
from holistic_cam_plugin.method.gated import gated_weights
from holistic_cam_plugin.method.low_pass_wrap import KSIZE_AT_224
from holistic_cam_plugin.method.pge import positive_gradient_weights
from holistic_cam_plugin.method.signs import signed_weights, split_signs

__all__ = ["WEIGHTINGS", "Weighting", "weighting_by_name"]

Size = tuple[int, ...]


class Weighting(NamedTuple):
    """How activations are weighed, with the mask that goes with it.

    Attributes:
        name: the user's word for it.
        weigh: makes the weights of one scale, `(B, C, h, w)`, of its activations and gradients in this shape, and eps;
            those of both signs of activations in one tensor, W+ - W-.
        fuse: makes the map of all the scales' activations and weights, of a size; or that of their first principal
            component, if its last argument says so.
        ksize_at_224: the mask's box filter in pixels at 224 px.
        mask_power: the mask's exponent.
    """

    name: str
    weigh: Callable[[Tensor, Tensor, float], Tensor]
    fuse: Callable[[Sequence[Tensor], Sequence[Tensor], Size, bool], Tensor]
    ksize_at_224: int = KSIZE_AT_224
    mask_power: float = 1.0


def weighting_by_name(name: str) -> Weighting:
    """The weighting of this name; ValueError if there is none."""
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(map(repr, WEIGHTINGS))}, got {name!r}")
    return WEIGHTINGS[name]


def _signed_pge(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    return signed_weights(lambda a, g: positive_gradient_weights(a, g, eps), activations, gradients)


def _signed_positive(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    return signed_weights(lambda _, g: g.clamp(min=0), activations, gradients)


def _fuse_split(activations: Sequence[Tensor], weights: Sequence[Tensor], size: Size, principal: bool) -> Tensor:
    """Positive weights: the two signs of activations are channels of their own."""
    return (fuse_principal if principal else fuse)(*split_signs(activations, weights), size)


def _fuse_whole(activations: Sequence[Tensor], weights: Sequence[Tensor], size: Size, principal: bool) -> Tensor:
    """Raw gradients are linear in the activations: there splitting makes no difference."""
    return (fuse_principal if principal else fuse)(activations, weights, size)


WEIGHTINGS = {
    weighting.name: weighting
    for weighting in (
        Weighting("pge", _signed_pge, _fuse_split),
        Weighting("positive", _signed_positive, _fuse_split),
        Weighting("gradient", lambda a, g, eps: g, _fuse_whole),
        Weighting("gated", lambda a, g, eps: gated_weights(g), _fuse_whole, 31, 4.0),
    )
}
