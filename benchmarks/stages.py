"""The method step by step, from the package's public pieces: what the ablations and the figures look into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin import (
    fundamental_scale_denoising,
    fuse,
    kernel_size,
    min_max_normalize,
    pyramid_sizes,
    resize_image,
)
from holistic_cam_plugin.method.low_pass_wrap import LARGEST_KERNEL
from holistic_cam_plugin.method.weighting import WEIGHTINGS
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EPS", "Stages", "fused_maps", "holistic_map", "kernel_sizes", "pyramid_stages"]

EPS = 1e-5


class Stages(NamedTuple):
    """What one image's pyramid gives.

    Attributes:
        size: height and width of the canvas in pixels.
        sizes: those of every scale.
        probabilities: of the target's class at every scale, if the target has a `category`; else empty.
        activations, gradients: by layer, then one `(C, h_t, w_t)` tensor a scale.
    """

    size: tuple[int, int]
    sizes: list[tuple[int, ...]]
    probabilities: list[float]
    activations: dict[str, list[Tensor]]
    gradients: dict[str, list[Tensor]]


def pyramid_stages(
    model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, num_scales: int = 7
) -> Stages:
    """One pass through the model at every scale (eq. 9).

    Args:
        layers: names of modules of `model`.
        image: `(1, C, H, W)`, on the model's device.
        num_scales: T.
    """
    size = (image.shape[-2], image.shape[-1])
    capture = Capture(model, [model.get_submodule(name) for name in layers])
    stages = Stages(size, pyramid_sizes(*size, num_scales), [], {n: [] for n in layers}, {n: [] for n in layers})
    for scale in stages.sizes:
        outputs = capture(resize_image(image, scale))
        if (category := getattr(target, "category", None)) is not None:
            stages.probabilities.append(float(outputs.detach()[0].softmax(dim=0)[category]))
        with torch.enable_grad():
            activations, gradients = capture.activations_and_gradients(target(outputs[0]))
        for name, activation, gradient in zip(layers, activations, gradients, strict=True):
            stages.activations[name].append(activation[0])
            stages.gradients[name].append(gradient[0])
    return stages


def kernel_sizes(size: tuple[int, int], blur: int, box: int) -> tuple[int, int]:
    """Kernels given in pixels at 224 px as those of a canvas of this size, within what OpenCV's median takes."""
    shorter = min(size)
    return min(LARGEST_KERNEL, kernel_size(shorter, blur)), min(LARGEST_KERNEL, kernel_size(shorter, box))


def fused_maps(
    stages: Stages, layer: str, *, weights: str = "pge", eps: float = EPS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The primary map M_PHR and the base scale's map M0 (eq. 8, 10-13), `(H, W)` each, in their own units."""
    activations, gradients = stages.activations[layer], stages.gradients[layer]
    pairs = zip(activations, gradients, strict=True)
    weighed = [WEIGHTINGS[weights].weigh(a[None], g[None], eps)[0] for a, g in pairs]
    primary = fuse(activations, weighed, stages.size).cpu().numpy()
    return primary, fuse(activations[:1], weighed[:1], stages.size).cpu().numpy()


def holistic_map(
    stages: Stages, layer: str, *, weights: str = "pge", fsd: bool = True, eps: float = EPS
) -> NDArray[np.float32]:
    """The map of `HolisticCAM` with these settings (eq. 8, 10-17): `(H, W)` in [0, 1]."""
    primary, base = fused_maps(stages, layer, weights=weights, eps=eps)
    return min_max_normalize(fundamental_scale_denoising(primary, base) if fsd else primary)
