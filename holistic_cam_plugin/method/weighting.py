r"""Weightings of the activations, by name.

* `pge`, the paper's: $W = \alpha \, \mathrm{ReLU}(G)$ with Grad-CAM++'s pixel weight $\alpha$ (eq. 6 and 8). For small
  gradients it is $G^3 / \epsilon$: sharp, and dependent on the scale of the logits.
* `positive`: $W = \mathrm{ReLU}(G)$, the positive gradients as they are. Multiplying the logits by a constant does not
  change the map, which shows the object instead of its strongest points.
  `benchmarks/results/weightings/README.md` has the study that selected it.
* `gradient`: $W = G$, the ablation without PGE.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from holistic_cam_plugin.method.pge import positive_gradient_weights
from holistic_cam_plugin.method.signs import signed_weights

__all__ = ["WEIGHTINGS", "Weighting", "find_weighting"]


class Weighting(NamedTuple):
    """How activations are weighted.

    Attributes:
        weigh: computes W of one scale of one image from A, G, all `(C, h, w)`, and eps.
        signed: whether W holds W+ - W-, so that the signs of A and W are split before they are fused. For raw gradients
            splitting makes no difference.
    """

    weigh: Callable[[Tensor, Tensor, float], Tensor]
    signed: bool


def find_weighting(name: str) -> Weighting:
    """The weighting of this name; ValueError if there is none."""
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(map(repr, WEIGHTINGS))}, got {name!r}")
    return WEIGHTINGS[name]


def _pge(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    return positive_gradient_weights(activations[None], gradients[None], eps)[0]


WEIGHTINGS = {
    "pge": Weighting(partial(signed_weights, _pge), signed=True),
    "positive": Weighting(partial(signed_weights, lambda a, g, eps: g.clamp(min=0)), signed=True),
    "gradient": Weighting(lambda a, g, eps: g, signed=False),
}
