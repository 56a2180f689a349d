"""Control methods: the effect of a centre bias alone, and of the mask alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_images, is_number
from holistic_cam_plugin.method.low_pass_wrap import fundamental_scale_denoising
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.passes.targets import Target, check_targets

__all__ = ["CenteredGaussian", "add_mask"]

Maps = NDArray[np.float32]


class CenteredGaussian:
    """A Gaussian at the image's centre, independent of the model and of the image's content.

    Args:
        model, target_layers, reshape_transform: as in pytorch-grad-cam; ignored.
        sigma: standard deviation as a share of each side.

    Raises:
        ValueError: `sigma` is not a finite number above 0.

    Example:
        >>> cam = CenteredGaussian(nn.Identity())(torch.rand(1, 3, 5, 5))[0]
        >>> float(cam[2, 2]), float(cam[0, 0])
        (1.0, 0.0)
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
        """Return the same map for every image: `(B, H, W)`, float32, in [0, 1]."""
        images = check_images(input_tensor, torch.device("cpu"))
        check_targets(targets, len(images))
        down, across = (_gaussian(side, self.sigma) for side in images.shape[-2:])
        return np.repeat(min_max_normalize(np.outer(down, across))[None], len(images), axis=0)

    def __enter__(self) -> CenteredGaussian:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to release."""


def add_mask(base_method: type) -> type:
    """Return a subclass of a CAM method that multiplies each map by the mask computed from the map itself.

    This is Holistic-CAM's mask (eq. 13-16) at a single scale. The maps are scaled to [0, 1].

    Args:
        base_method: a class whose instances return maps `(B, H, W)` when called, such as `GradCAM`.

    Returns:
        A class whose name starts with `Masked`, with the constructor and the call of `base_method`.

    Raises:
        TypeError: `base_method` is not a class.

    Example:
        >>> method = add_mask(CenteredGaussian)
        >>> method.__name__, method(nn.Identity())(torch.rand(2, 3, 32, 32)).shape
        ('MaskedCenteredGaussian', (2, 32, 32))
    """
    if not isinstance(base_method, type):
        raise TypeError(f"base_method must be a class, such as GradCAM, got {base_method!r}")

    def call_and_mask(self: Any, *args: Any, **kwargs: Any) -> Maps:
        maps = base_method.__call__(self, *args, **kwargs)
        return np.stack([min_max_normalize(fundamental_scale_denoising(one, one)) for one in maps])

    description = f"{base_method.__name__} with the mask of its own maps."
    return type(f"Masked{base_method.__name__}", (base_method,), {"__call__": call_and_mask, "__doc__": description})


def _gaussian(side: int, sigma: float) -> NDArray[np.float64]:
    offsets = (np.arange(side) + 0.5) / side - 0.5
    values: NDArray[np.float64] = np.exp(-((offsets / sigma) ** 2) / 2)
    return values
