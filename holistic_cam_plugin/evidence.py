"""What the masks are made of: the mask layer's evidence for the class, or each target layer's own base scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holistic_cam_plugin.method.class_mask import class_evidence
from holistic_cam_plugin.method.low_pass_wrap import low_pass_wrap
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.run import Scale

__all__ = ["Evidence", "compute_evidence"]

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
        class_evidence(
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


def _warn(reason: str, advice: str, stacklevel: int) -> None:
    warnings.warn(
        f"{reason} the layer is masked by its own base scale, as in the paper. {advice}", stacklevel=stacklevel + 3
    )


def _same(maps: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether a container and its last part returned these maps."""
    return maps[0].shape == others[0].shape and torch.equal(maps[0], others[0])
