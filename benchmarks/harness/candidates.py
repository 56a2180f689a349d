"""Variants of the method made of one pyramid: other weights, another fusion, another mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.methods import MapsByMethod
from holistic_cam_plugin import fuse, kernel_size, min_max_normalize, pyramid_sizes, resize_image
from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.method.intermediates import Intermediates
from holistic_cam_plugin.method.low_pass_wrap import (
    BLUR_SIZE_AT_224,
    KSIZE_AT_224,
    LARGEST_KERNEL,
    denoising_mask,
)
from holistic_cam_plugin.method.variation import gradient_variation

__all__ = ["Candidate", "Mask", "Pyramid", "candidate_maps", "mean_of_maps", "raw_gradients", "scale_probabilities"]

Map = NDArray[np.float32]
Size = tuple[int, int]
# W of one scale's A and G, `(1, C, h, w)` all, and eps.
Weigh = Callable[[Tensor, Tensor, float], Tensor]
# The map of A_t and W_t of all the scales, `(C, h_t, w_t)` each, on the canvas: `fuse` and its like.
Fusion = Callable[[Sequence[Tensor], Sequence[Tensor], Size], Tensor]


NUM_SCALES = 7


class Mask(NamedTuple):
    """A low-pass wrap; kernels in pixels at 224 px.

    Attributes:
        blur, box: of the median and the box filter; a median of 1 changes nothing.
        power: of the mask.
        own: it is made of the fused map itself instead of the base scale's.
        floor: what is left of the map where the mask is 0, of a mask in units of its maximum; 0 leaves its units.
        fades: its power is the variation of the base scale's gradient, so that there is none in deep layers.
    """

    blur: int = BLUR_SIZE_AT_224
    box: int = KSIZE_AT_224
    power: float = 1.0
    own: bool = False
    floor: float = 0.0
    fades: bool = False

    def of(self, base_map: Map) -> NDArray[np.float64]:
        """What the fused map is multiplied with, in the base map's shape."""
        # The method's own blur has a way beyond OpenCV's largest kernel; another one stops there.
        blur = 1 if self.blur == 1 else min(LARGEST_KERNEL, kernel_size(min(base_map.shape), self.blur))
        size = None if self.blur == BLUR_SIZE_AT_224 else blur
        return denoising_mask(base_map, size, ksize_at_224=self.box, power=self.power)


class Candidate(NamedTuple):
    """One setting; the defaults are the paper's.

    Attributes:
        weigh: weights of one scale.
        mask: None for none.
        base: weights of the base map that the mask is made of; None: `weigh`.
        fusion: how activations and weights of all the scales become one map.
        shares: the weight of each scale, up to a factor; None: all alike.
        scales: so many of the pyramid's, the smallest.
        split: every channel is taken as two, `relu(A)` with G and `relu(-A)` with -G.
        against: by how much the evidence against the class counts, in the way that `outweighed` says; or a function
            that tells it of the pyramid.
        outweighed: makes a map of the evidence for the class, that against it (the same of -G), and `against`.
        eps: for weights that have one.
    """

    weigh: Weigh
    mask: Mask | None = Mask()
    base: Weigh | None = None
    fusion: Fusion = fuse
    shares: Callable[[Pyramid], Sequence[float]] | None = None
    scales: int = NUM_SCALES
    split: bool = False
    against: float | Callable[[Pyramid], float] = 0.0
    outweighed: Callable[[Map, Map, float], Map] | None = None
    eps: float = 1e-5


class Pyramid:
    """One image in one layer: what candidates are made of. What they share is computed once.

    Attributes:
        activations: A_t, one `(C, h_t, w_t)` a scale.
        gradients: G_t in the same shapes.
        size: height and width of the canvas in pixels.
        probabilities: gives the target class's probability at each scale.
    """

    def __init__(self, record: Intermediates, probabilities: Callable[[], list[float]]) -> None:
        self.activations, self.gradients = record.activations, record.weights
        self.size: Size = (record.fused.shape[0], record.fused.shape[1])
        self.probabilities = probabilities
        self._evidences: dict[tuple[Candidate, int], Map] = {}  # by what is fused, and its sign

    def map(self, candidate: Candidate) -> Map:
        """The candidate's map, `(H, W)` in [0, 1]."""
        unmasked = candidate._replace(mask=None, base=None)
        fused = self._fused(unmasked)
        if candidate.mask is None:
            return min_max_normalize(fused)
        if candidate.mask.own:
            return min_max_normalize(fused.astype(np.float64) * candidate.mask.of(fused))
        weigh = candidate.base or candidate.weigh
        base = self._fused(unmasked._replace(weigh=weigh, fusion=fuse, shares=None, scales=1))
        return min_max_normalize(fused.astype(np.float64) * self._mask(candidate.mask, base))

    def _mask(self, setting: Mask, base: Map) -> NDArray[np.float64]:
        mask = setting.of(base)
        if not (setting.floor or setting.fades) or not mask.any():
            return mask
        power = float(gradient_variation(self.gradients[0][None])) if setting.fades else 1.0
        return np.asarray(setting.floor + (1 - setting.floor) * (mask / mask.max()) ** power, dtype=np.float64)

    def _fused(self, candidate: Candidate) -> Map:
        alone = candidate._replace(against=0.0, outweighed=None)
        evidence = self._evidence(alone, 1)
        if candidate.outweighed is None:
            return evidence
        against = candidate.against(self) if callable(candidate.against) else candidate.against
        return candidate.outweighed(evidence, self._evidence(alone, -1), against)

    def _evidence(self, candidate: Candidate, sign: int) -> Map:
        """The fused map; with sign -1 that of the evidence against the class."""
        if (candidate, sign) not in self._evidences:
            self._evidences[candidate, sign] = self._fuse(candidate, sign)
        return self._evidences[candidate, sign]

    def _fuse(self, candidate: Candidate, sign: int) -> Map:
        activations, gradients = self.activations[: candidate.scales], self.gradients[: candidate.scales]
        gradients = [sign * g for g in gradients]
        if candidate.split:
            activations = [torch.cat([a.clamp(min=0), (-a).clamp(min=0)]) for a in activations]
            gradients = [torch.cat([g, -g]) for g in gradients]
        pairs = zip(activations, gradients, strict=True)
        weights = [candidate.weigh(a[None], g[None], candidate.eps)[0] for a, g in pairs]
        if candidate.shares is not None:
            shares = candidate.shares(self)[: len(weights)]
            weights = [w * (share / max(shares)) for w, share in zip(weights, shares, strict=True)]
        fused: Map = torch.nan_to_num(candidate.fusion(activations, weights, self.size)).cpu().numpy()
        return fused


def candidate_maps(
    model: nn.Module,
    layers: Sequence[str],
    candidates: Mapping[str, Candidate],
    image: Tensor,
    target: ClassifierOutputTarget,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> MapsByMethod:
    """The maps of all the candidates in every layer, of one pyramid.

    Args:
        layers: names of modules of `model`.
        image: `(1, 3, H, W)`, on the model's device.
        options: as `Explainable.options` tells.
    """
    num_scales = max(candidate.scales for candidate in candidates.values())
    if num_scales > 1:  # the first of fewer scales would have other sizes
        num_scales = NUM_SCALES
    modules = [model.get_submodule(name) for name in layers]
    cam = HolisticCAM(model, modules, weighting="gradient", fsd=False, num_scales=num_scales, **options)
    probabilities = cache(partial(scale_probabilities, model, image, target.category))
    found: MapsByMethod = {}
    for layer, (record,) in zip(layers, cam.intermediates(image, [target]), strict=True):
        pyramid = Pyramid(record, probabilities)
        found |= {(layer, name): pyramid.map(candidate) for name, candidate in candidates.items()}
    return found


def raw_gradients(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    """The gradients as they are."""
    return gradients


def mean_of_maps(activations: Sequence[Tensor], weights: Sequence[Tensor], size: Size) -> Tensor:
    """Instead of the paper's product of means: every scale's own map, scaled to [0, 1], averaged; `(H, W)`."""
    maps = [fuse([a], [w], size) for a, w in zip(activations, weights, strict=True)]
    tiny = torch.finfo(maps[0].dtype).tiny
    return torch.stack([(m - m.min()) / (m.max() - m.min()).clamp(min=tiny) for m in maps]).mean(dim=0)


@torch.inference_mode()
def scale_probabilities(model: nn.Module, image: Tensor, category: int) -> list[float]:
    """The class's probability in the image `(1, 3, H, W)` at every scale of the pyramid (paper, Fig. 3)."""
    sizes = pyramid_sizes(image.shape[-2], image.shape[-1])
    return [float(model(resize_image(image, size)).softmax(dim=1)[0, category]) for size in sizes]
