"""Checks of arguments that several parts of the package take."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_images", "check_integer", "check_positive_integer", "check_switch", "is_integer", "is_number"]


def check_images(images: Tensor, device: torch.device, volumes: bool = False) -> Tensor:
    """Validate the images, detach them and move them to the device.

    Raises:
        TypeError, ValueError: anything but a batch `(B, C, H, W)` of floats or, with `volumes`, `(B, C, D, H, W)`.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = f"dtype {images.dtype}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise TypeError(f"input_tensor must be a floating-point tensor of preprocessed images, got {given}")
    if images.ndim not in ((4, 5) if volumes else (4,)) or 0 in images.shape:
        also = " or (B, C, D, H, W) of volumes" if volumes else ""
        raise ValueError(f"input_tensor must be a batch (B, C, H, W) of images{also}, got shape {tuple(images.shape)}")
    if images.is_meta:
        raise ValueError('input_tensor is on torch.device("meta"), which has no values: pass images on another device')
    return images.detach().to(device)


def check_switch(name: str, value: bool) -> None:
    """Raise TypeError unless `value` is True or False; NumPy's are accepted."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_integer(name: str, value: int) -> None:
    """Raise TypeError unless `value` is an integer, Python's or NumPy's."""
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")


def check_positive_integer(name: str, value: int, largest: int | None = None) -> None:
    """Raise TypeError or ValueError unless `value` is an integer of at least 1 and at most `largest`."""
    check_integer(name, value)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if largest is not None and value > largest:
        raise ValueError(f"{name} must be at most {largest}, got {value}")


def is_integer(value: object) -> bool:
    """Whether `value` is an integer, of Python or NumPy, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether `value` is a real number, of Python or NumPy, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)
