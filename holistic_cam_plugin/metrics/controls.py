"""Controls: what a method's figures owe to the image's middle alone, and what to the low-pass wrap alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin.method.low_pass_wrap import fundamental_scale_denoising
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.method.pyramid import check_images
from holistic_cam_plugin.metrics.scoring import is_number
from holistic_cam_plugin.passes.targets import Target, check_targets

__all__ = ["CenteredGaussian", "low_pass_wrapped"]

Maps = NDArray[np.float32]


class CenteredGaussian:
    """A Gaussian in the middle, which knows nothing of the model or the image; called like a method of the library.

    Args:
        model, target_layers, reshape_transform: accepted, as of any method, and not used.
        sigma: standard deviation as a share of each side's length.

    Raises:
        ValueError: `sigma` is not a finite number above 0.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Any = None,
        *,
        sigma: float = 0.25,
    ) -> None:
        if not is_number(sigma) or not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be a finite number above 0, got {sigma!r}")
        self.model = model
        self.sigma = float(sigma)

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Maps:
        """The same map for every image: `(B, H, W)`, float32, in [0, 1]. Mirrored pixels are tied."""
        images = check_images(input_tensor, torch.device("cpu"))
        check_targets(targets, len(images))
        down, across = (_bell(side, self.sigma) for side in images.shape[-2:])
        return np.repeat(min_max_normalize(np.outer(down, across))[None], len(images), axis=0)

    def __enter__(self) -> CenteredGaussian:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to release."""


def low_pass_wrapped(base_method: type) -> type:
    """A subclass of a CAM method whose maps carry the low-pass wrap of themselves.

    It is what is left of Holistic-CAM's denoising (eq. 13-16) where there is one scale: the map times the wrap of the
    same map, scaled to [0, 1]. It is built and called as the method is.

    Args:
        base_method: a class whose objects give maps `(B, H, W)` when called, such as `GradCAM`.

    Returns:
        A class named after it, `LowPassWrappedGradCAM`.

    Raises:
        TypeError: `base_method` is no class.
    """
    if not isinstance(base_method, type):
        raise TypeError(f"base_method must be a class, such as GradCAM, got {base_method!r}")

    def wrapped_call(self: Any, *args: Any, **kwargs: Any) -> Maps:
        maps = base_method.__call__(self, *args, **kwargs)
        return np.stack([min_max_normalize(fundamental_scale_denoising(one, one)) for one in maps])

    description = f"{base_method.__name__} with the low-pass wrap of its own map applied."
    members = {"__call__": wrapped_call, "__doc__": description}
    return type(f"LowPassWrapped{base_method.__name__}", (base_method,), members)


def _bell(side: int, sigma: float) -> NDArray[np.float64]:
    offsets = (np.arange(side) + 0.5) / side - 0.5
    bell: NDArray[np.float64] = np.exp(-((offsets / sigma) ** 2) / 2)
    return bell
