"""What weighs the activations, by name: each with the fusion and the mask that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from holistic_cam_plugin.method.evidence import fuse_evidence, scaled_gradients
from holistic_cam_plugin.method.fuse import fuse, fuse_principal
from holistic_cam_plugin.method.gated import gated_weights
from holistic_cam_plugin.method.low_pass_wrap import KSIZE_AT_224
from holistic_cam_plugin.method.pge import positive_gradient_weights
from holistic_cam_plugin.method.signs import signed_weights, split_signs

__all__ = ["WEIGHTINGS", "MaskSetting", "Weighting", "weighting_by_name"]

Size = tuple[int, ...]


class MaskSetting(NamedTuple):
    """The mask that goes with a weighting.

    Attributes:
        ksize_at_224: its box filter in pixels at 224 px.
        power: its exponent.
        own: it is made of the fused map itself, without a median filter, not of the base scale's map.
    """

    ksize_at_224: int = KSIZE_AT_224
    power: float = 1.0
    own: bool = False


class Weighting(NamedTuple):
    """How activations are weighed.

    Attributes:
        name: the user's word for it.
        weigh: makes the weights of one scale, `(B, C, h, w)`, of its activations and gradients in this shape, and eps.
        fuse: makes the map of all the scales' activations and weights, of a size; or that of their first principal
            component, if its last argument says so.
        mask: what the fused map is masked with.
    """

    name: str
    weigh: Callable[[Tensor, Tensor, float], Tensor]
    fuse: Callable[[Sequence[Tensor], Sequence[Tensor], Size, bool], Tensor]
    mask: MaskSetting = MaskSetting()


def weighting_by_name(name: str) -> Weighting:
    """The weighting of this name; ValueError if there is none."""
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(map(repr, WEIGHTINGS))}, got {name!r}")
    return WEIGHTINGS[name]


def _signed_pge(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    return signed_weights(lambda a, g: positive_gradient_weights(a, g, eps), activations, gradients)


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
        Weighting("evidence", scaled_gradients, fuse_evidence, MaskSetting(own=True)),
        Weighting("gradient", lambda activations, gradients, eps: gradients, _fuse_whole),
        Weighting(
            "gated", lambda activations, gradients, eps: gated_weights(gradients), _fuse_whole, MaskSetting(31, 4.0)
        ),
    )
}
