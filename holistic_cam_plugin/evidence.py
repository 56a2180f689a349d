"""What the masks are made of: the mask layer's evidence for the class, or each target layer's own base scale."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from holistic_cam_plugin.method.class_mask import class_evidence
from holistic_cam_plugin.method.low_pass_wrap import low_pass_wrap
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.run import Scale

__all__ = ["Evidence", "compute_evidence"]

COARSE = 56  # pixels of a map's shorter side; a fifth of them is the window of the mask's median filter

# For every map, E; None: the target layer masks itself, by its own base scale.
Evidence = list[NDArray[np.float32] | None]


def compute_evidence(
    capture: Capture,
    scales: Sequence[Scale],
    maps: Sequence[tuple[int, int]],
    size: tuple[int, ...],
    contrast: float,
    blur_size: int | None,
    stacklevel: int,
) -> list[Evidence]:
    """Compute the evidence of which the mask of each target layer and map is made; warn where it cannot be used.

    Args:
        capture: which layers were recorded, in which order.
        scales: what they gave, the base scale first.
        maps: image and target of each map.
        size: of the maps.
        contrast: as in `class_evidence`.
        blur_size: as in `low_pass_wrap`.
        stacklevel: of the warnings, from the caller on: 1 is the caller's caller.
    """
    none: Evidence = [None] * len(maps)
    if capture.mask_layer is None:
        return [none] * len(capture.target_layers)
    place = capture.layers.index(capture.mask_layer)
    found = [
        _compute_coarsely(
            [scale.activations[place][image] for scale in scales],
            [scale.gradients[place][image][target] for scale in scales],
            size,
            contrast,
        )
        for image, target in maps
    ]
    kept = [evidence.any() and low_pass_wrap(evidence, blur_size).any() for evidence in found]
    if not all(evidence.any() for evidence in found):
        _warn("nothing in the mask layer speaks for the class:", "Check the model's predictions", stacklevel)
    if any(evidence.any() and not some for evidence, some in zip(found, kept, strict=True)):
        advice = "What speaks for it is smaller than half of the median filter's window: pass a smaller blur_size"
        _warn("the mask of the class is zero everywhere:", advice, stacklevel)
    usable: Evidence = [evidence if some else None for evidence, some in zip(found, kept, strict=True)]
    base = scales[0].activations
    late = [capture.is_after_mask(layer) and not _same(base[k], base[place]) for k, layer in
            enumerate(capture.target_layers)]  # fmt: skip
    if any(late):
        _warn("a target layer comes after the mask layer:", "Pass a deeper layer as mask_layer", stacklevel)
    return [none if own else usable for own in late]


def _compute_coarsely(
    activations: Sequence[Tensor], gradients: Sequence[Tensor], size: tuple[int, ...], contrast: float
) -> NDArray[np.float32]:
    """`class_evidence` at few pixels of a large map, which is faster: the mask's filters, wider than that, blur it."""
    step = min(size[-2:]) // COARSE
    if step <= 1:
        return class_evidence(activations, gradients, size, contrast)
    coarse = (*size[:-2], *(math.ceil(side / step) for side in size[-2:]))
    evidence = torch.from_numpy(class_evidence(activations, gradients, coarse, contrast))
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return np.asarray(F.interpolate(evidence[None, None], size=size, mode=mode, align_corners=False)[0, 0].numpy())


def _warn(reason: str, advice: str, stacklevel: int) -> None:
    warnings.warn(
        f"{reason} the layer is masked by its own base scale, as in the paper. {advice}", stacklevel=stacklevel + 3
    )


def _same(maps: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether a container and its last part returned these maps."""
    return maps[0].shape == others[0].shape and torch.equal(maps[0], others[0])
