"""Variants of the method with other weights, another fusion or another mask, all computed from the same passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.methods import MapsByMethod
from holistic_cam_plugin import HolisticCAM, fuse, kernel_size, min_max_normalize
from holistic_cam_plugin.method.class_mask import class_evidence
from holistic_cam_plugin.method.intermediates import Intermediates
from holistic_cam_plugin.method.low_pass_wrap import BLUR_SIZE_AT_224, KSIZE_AT_224, LARGEST_KERNEL, denoising_mask

__all__ = ["Candidate", "ClassMask", "Mask", "Pyramid", "explain_candidates"]

Map = NDArray[np.float32]
Size = tuple[int, int]
# Computes W of one scale from its A and G, all `(1, C, h, w)`.
Weigh = Callable[[Tensor, Tensor], Tensor]
# Computes the map `(H, W)` from A_t and W_t of the scales, `(C, h_t, w_t)` each: `fuse` or a variant.
Fusion = Callable[[Sequence[Tensor], Sequence[Tensor], Size], Tensor]

NUM_SCALES = 7


class Mask(NamedTuple):
    """Settings of a mask.

    Attributes:
        blur: side of the median filter in pixels of a 224 px map; 1 for no median filter.
        box: side of the box filter likewise.
        power: exponent of the mask, a number or a function of the pyramid.
        floor: smallest value of the mask, in units of its maximum.
        own: computed from the fused map instead of the base scale's map.
    """

    blur: int = BLUR_SIZE_AT_224
    box: int = KSIZE_AT_224
    power: float | Callable[[Pyramid], float] = 1.0
    floor: float = 0.0
    own: bool = False

    def of(self, base_map: Map, pyramid: Pyramid) -> NDArray[np.float64]:
        """The factor of the fused map, in the shape of `base_map`."""
        shorter = min(base_map.shape)
        # None, as the default has a way around OpenCV's largest kernel.
        blur = None if self.blur == BLUR_SIZE_AT_224 else min(LARGEST_KERNEL, kernel_size(shorter, self.blur))
        mask = denoising_mask(base_map, 1 if self.blur == 1 else blur, kernel_size(shorter, self.box))
        power = self.power(pyramid) if callable(self.power) else self.power
        if (power, self.floor) == (1, 0) or not mask.any():
            return mask
        return np.asarray(self.floor + (1 - self.floor) * (mask / mask.max()) ** power, dtype=np.float64)


class ClassMask(NamedTuple):
    """Settings of a mask made of the deepest layer's evidence for the class.

    Attributes:
        scales: indices of the scales that the evidence is made of.
        against: beta, how much evidence against the class counts; 1: as it is.
        contrast: exponent of the evidence's net share.
        power: exponent of the mask.
    """

    scales: Sequence[int] = range(NUM_SCALES)
    against: float = 1.0
    contrast: float = 0.0
    power: float = 1.0


class Candidate(NamedTuple):
    """Settings of a variant; the defaults are the paper's, without split signs.

    Attributes:
        weigh: computes the weights of one scale.
        mask: None for no mask.
        fusion: computes one map from the activations and weights of the scales.
        scales: indices of the scales that are fused, the smallest scale first.
        shares: weights of all scales of a pyramid, up to a factor; None: equal weights.
        split: split each channel in two, `relu(A)` with G and `relu(-A)` with -G.
        combine: combines the map of the evidence for the class with that of the evidence against it, which is computed
            from -G; its last argument is `against`.
        against: a number, or a function of the pyramid.
        class_mask: another factor of the fused map, after `mask`; None for no class mask.
    """

    weigh: Weigh
    mask: Mask | None = Mask()
    fusion: Fusion = fuse
    scales: Sequence[int] = range(NUM_SCALES)
    shares: Callable[[Pyramid], Sequence[float]] | None = None
    split: bool = False
    combine: Callable[[Map, Map, float], Map] | None = None
    against: float | Callable[[Pyramid], float] = 0.0
    class_mask: ClassMask | None = None


class Pyramid:
    """Activations and gradients of one image in one layer, from which the candidates' maps are computed.

    Args:
        record: the layer's, with raw gradients as weights.
        deepest: the layer that class masks are made of.

    Attributes:
        activations: A_t, `(C, h_t, w_t)` for each scale.
        gradients: G_t in the same shapes.
        size: height and width of the map in pixels.
    """

    def __init__(self, record: Intermediates, deepest: Pyramid | None = None) -> None:
        self.activations, self.gradients = record.activations, record.weights
        self.size: Size = (record.fused.shape[0], record.fused.shape[1])
        self._deepest = self if deepest is None else deepest
        self._evidence: dict[tuple[Candidate, int], Map] = {}
        self._class_masks: dict[ClassMask, NDArray[np.float64]] = {}

    def explain(self, candidate: Candidate) -> Map:
        """The candidate's map, `(H, W)` in [0, 1]."""
        fused = self._combine(candidate)
        masked = fused.astype(np.float64)
        if candidate.mask is not None:
            base = candidate._replace(fusion=fuse, scales=(0,), shares=None)
            masked *= candidate.mask.of(fused if candidate.mask.own else self._combine(base), self)
        if candidate.class_mask is not None:
            masked *= self._deepest.mask_class(candidate.class_mask)
        return min_max_normalize(masked)

    def mask_class(self, mask: ClassMask) -> NDArray[np.float64]:
        """The low-pass wrap of this layer's evidence for the class, computed once."""
        if mask not in self._class_masks:
            activations, gradients = (
                [stack[scale] for scale in mask.scales] for stack in (self.activations, self.gradients)
            )
            if mask.against == 1:
                evidence = class_evidence(activations, gradients, self.size, mask.contrast)
            else:
                activations, gradients = separate_signs(activations, gradients)
                strict = [torch.where(g < 0, mask.against * g, g) for g in gradients]
                evidence = fuse(activations, strict, self.size).cpu().numpy()
            wrap = denoising_mask(evidence)
            self._class_masks[mask] = (wrap / (wrap.max() or 1.0)) ** mask.power
        return self._class_masks[mask]

    def _combine(self, candidate: Candidate) -> Map:
        alone = candidate._replace(mask=None, class_mask=None, combine=None, against=0.0)
        if candidate.combine is None:
            return self._fuse(alone, 1)
        against = candidate.against(self) if callable(candidate.against) else candidate.against
        return candidate.combine(self._fuse(alone, 1), self._fuse(alone, -1), against)

    def _fuse(self, candidate: Candidate, sign: int) -> Map:
        """The fused map of the gradients times `sign`, computed once."""
        if (candidate, sign) in self._evidence:
            return self._evidence[candidate, sign]
        activations = [self.activations[scale] for scale in candidate.scales]
        gradients = [sign * self.gradients[scale] for scale in candidate.scales]
        if candidate.split:
            activations, gradients = separate_signs(activations, gradients)
        weights = [candidate.weigh(a[None], g[None])[0] for a, g in zip(activations, gradients, strict=True)]
        if candidate.shares is not None:
            shares = candidate.shares(self)
            shares = [shares[scale] for scale in candidate.scales]
            weights = [w * (share / max(shares)) for w, share in zip(weights, shares, strict=True)]
        fused: Map = torch.nan_to_num(candidate.fusion(activations, weights, self.size)).cpu().numpy()
        self._evidence[candidate, sign] = fused
        return fused


def separate_signs(activations: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Split the activations into channels of one sign each, `[A+, A-]`, with their gradients `[G, -G]`."""
    if all(bool((a >= 0).all()) for a in activations):
        return list(activations), list(gradients)
    split = [torch.cat([a.clamp(min=0), (-a).clamp(min=0)]) for a in activations]
    return split, [torch.cat([g, -g]) for g in gradients]


def explain_candidates(
    model: nn.Module,
    layers: Sequence[str],
    candidates: Mapping[str, Candidate],
    image: Tensor,
    target: ClassifierOutputTarget,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> MapsByMethod:
    """Compute the maps of all candidates in each layer.

    Args:
        layers: names of modules of `model`.
        image: `(1, 3, H, W)`, on the model's device.
        options: see `Explainable.options`.
    """
    # The sizes of the scales depend on their number.
    num_scales = 1 if all(tuple(candidate.scales) == (0,) for candidate in candidates.values()) else NUM_SCALES
    modules = [model.get_submodule(name) for name in layers]
    masked = any(candidate.class_mask for candidate in candidates.values())
    recorded = [*modules, options["mask_layer"]] if masked else modules
    cam = HolisticCAM(model, recorded, weighting="gradient", fsd=False, num_scales=num_scales, **options)
    records = [record for (record,) in cam.intermediates(image, [target])]
    deepest = Pyramid(records[-1]) if masked else None
    maps: MapsByMethod = {}
    for layer, record in zip(layers, records, strict=False):
        pyramid = Pyramid(record, deepest)
        maps |= {(layer, name): pyramid.explain(candidate) for name, candidate in candidates.items()}
    return maps
