"""The results of every step of one map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Intermediates"]


class Intermediates(NamedTuple):
    """The results of every step for one image, target and layer; of volumes with a depth D.

    Attributes:
        activations: A_t, one `(C, h_t, w_t)` tensor per scale, float32.
        weights: W_t in the same shapes (paper, eq. 8); of signed activations W+ - W- (see `split_signs`); with
            `by_positions` times the scale's share of positions; with `weighting="gradient"` the gradients.
        fused: the primary map M_PHR, `(H, W)`, float32 (eq. 12). As the product of gradients and activations it has the
            units of the score, like gradient x input, but it does not sum to the score. With `"positive"` and
            `"gradient"` it is proportional to the score; with `"pge"` small gradients count with their third power.
        base: the map that the mask is made of, `(H, W)`, float32: the base scale's map M0 (eq. 13), or the mask layer's
            evidence E (see `class_evidence`); None with `fsd=False`.
        mask: the factor of the fused map, `(H, W)`, float64 (eq. 13 to 16); None with `fsd=False`.
        saliency_map: the result, `(H, W)`, float32, in [0, 1] (eq. 17).

    Example:
        >>> holistic_map([torch.rand(8, 7, 7)], [torch.rand(8, 7, 7)], (28, 28), fsd=False)
        Intermediates(activations=[(8, 7, 7)], weights=[(8, 7, 7)], fused=(28, 28), base=None, mask=None,
            saliency_map=(28, 28))
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

        The fused map times the mask, which is divided by its maximum; without a mask the fused map. The division, which
        eq. 17 cancels, keeps the maps of different images comparable.
        """
        fused = self.fused.astype(np.float64)
        if self.mask is None:
            return fused
        peak = self.mask.max()
        return np.asarray(fused * (self.mask / peak if peak > 0 else self.mask))

    def __repr__(self) -> str:
        """Shapes in the place of values."""

        def shapes(value: object) -> object:
            if isinstance(value, list):
                return [tuple(tensor.shape) for tensor in value]
            return getattr(value, "shape", value)

        fields = ", ".join(f"{name}={shapes(value)}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({fields})"
