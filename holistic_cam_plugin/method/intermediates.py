"""What lies between the stages: the record of one map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Intermediates"]


class Intermediates(NamedTuple):
    """What lies between the stages for one target of one image in one layer; of volumes with a depth D.

    Attributes:
        activations: A_t, one `(C, h_t, w_t)` tensor a scale, float32.
        weights: W_t in the same shapes (paper, eq. 8), of signed activations W+ - W- (see `split_signs`); with
            `weighting="gradient"` the gradients.
        fused: the primary map M_PHR, `(H, W)`, float32 (eq. 12). It is made of gradients times activations, so its
            units are the score's, as those of gradient x input; it does not add up to the score. `"positive"` and
            `"gradient"` are in proportion to the score; in `"pge"` gradients count at most half, and small ones count
            with their third power.
        base: the base scale's map M0 likewise (eq. 13); None with `fsd=False`.
        mask: what the fused map is multiplied with, `(H, W)`, float64 (eq. 16); None likewise.
        saliency_map: the result, `(H, W)`, float32, in [0, 1] (eq. 17).
    """

    activations: list[Tensor]
    weights: list[Tensor]
    fused: NDArray[np.float32]
    base: NDArray[np.float32] | None
    mask: NDArray[np.float64] | None
    saliency_map: NDArray[np.float32]

    @property
    def masked(self) -> NDArray[np.float64]:
        """The map before it is scaled to [0, 1], `(H, W)`, float64, in the units of the fused map.

        It is the fused map times the mask in units of the mask's own maximum, or the fused map where there is no mask.
        That factor, which eq. 17 takes out, keeps the maps of different images comparable: the mask has itself the
        units of a map, and the product of eq. 16 their square.
        """
        fused = self.fused.astype(np.float64)
        if self.mask is None:
            return fused
        peak = self.mask.max()
        return np.asarray(fused * (self.mask / peak if peak > 0 else self.mask))
