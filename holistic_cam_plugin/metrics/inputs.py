"""Validation of the arguments of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_images
from holistic_cam_plugin.method.normalize import unit_exponents
from holistic_cam_plugin.passes.targets import Target, check_targets

__all__ = ["check_inputs", "check_maps", "find_device", "scale_maps", "to_array"]


def check_inputs(
    input_tensor: Tensor, cams: Any, targets: Sequence[Target], model: nn.Module
) -> tuple[Tensor, NDArray[np.floating]]:
    """Validate the arguments of a metric.

    Returns:
        The images `(B, C, H, W)`, detached and on the model's device, and the maps `(B, H, W)` as in `check_maps`.

    Raises:
        TypeError, ValueError: the images are not a batch of finite floating-point images, or the shape of `cams` or the
            number of targets differs from theirs.
    """
    images = check_images(input_tensor, find_device(model, input_tensor))
    finite = images.isfinite().flatten(start_dim=1).all(dim=1).cpu().numpy()
    if not finite.all():
        raise ValueError(f"input_tensor contains NaN or infinite values in image {np.flatnonzero(~finite).tolist()}")
    maps = check_maps(cams)
    expected = (len(images), *images.shape[-2:])
    if maps.shape != expected:
        raise ValueError(f"cams must have the shape (B, H, W) of the images, {tuple(expected)}, got {maps.shape}")
    if targets is None:
        raise TypeError("metrics need one target per image, such as [ClassifierOutputTarget(281)], got None")
    check_targets(targets, len(images))
    return images, maps


def check_maps(cams: Any) -> NDArray[np.floating]:
    """Convert maps to a C-contiguous array of float32 or float64.

    Raises:
        TypeError: `cams` are not real numbers.
        ValueError: `cams` are not `(B, H, W)`, are empty or not finite.
    """
    maps = to_array(cams)
    if maps.dtype.kind not in "biuf":
        raise TypeError(f"cams must be real numbers, got dtype {maps.dtype}")
    # Sums of float16 would overflow.
    maps = np.ascontiguousarray(maps, dtype=np.float32 if maps.dtype in (np.float16, np.float32) else np.float64)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"cams must be a batch (B, H, W) of maps, got shape {maps.shape}")
    broken = ~np.isfinite(maps).all(axis=(1, 2))
    if broken.any():
        raise ValueError(f"cams contain NaN or infinite values in map {np.flatnonzero(broken).tolist()}")
    return maps


def scale_maps(cams: Any) -> NDArray[np.floating]:
    """Divide each map by the power of two that brings its maximum into [1, 2), so that its sum neither overflows nor
    vanishes; raise as `check_maps`, and ValueError for negative maps.
    """
    maps = check_maps(cams)
    if (maps < 0).any():
        raise ValueError(f"cams must not be negative, got a minimum of {maps.min():g}")
    return np.asarray(np.ldexp(maps, -unit_exponents(maps, axis=(1, 2))))


def to_array(values: Any) -> NDArray[Any]:
    """Convert a tensor on any device, or anything array-like; bfloat16, which NumPy lacks, becomes float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    return np.asarray(values)


def find_device(model: nn.Module, default: Tensor) -> torch.device:
    """Return the device of the model's parameters, or that of `default` if the model has none."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return default.device if isinstance(default, Tensor) else torch.device("cpu")
    return parameter.device
