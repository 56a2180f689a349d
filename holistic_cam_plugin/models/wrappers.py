"""Models inside of wrappers: those that timm or transformers describe, and what a wrapper does to their images.

Wrappers are `AveragedModel`, timm's `ModelEmaV2` and `ModelEmaV3`, peft's models, `nn.Sequential(normalise, model)`, or
a module of the user's. What a wrapper does to the images is measured, not guessed from its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holistic_cam_plugin.errors import out_of_memory
from holistic_cam_plugin.models.preserve import preserve_model

__all__ = ["Affine", "is_open_clip", "is_timm", "list_described", "measure_images"]

# Of the largest value: rounding in bfloat16 is smaller.
_TOLERANCE = 1e-2


class Affine(NamedTuple):
    """For each channel, `scale * x + shift` of the wrapper's images x is what the model inside sees."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]


def list_described(model: nn.Module) -> Iterator[nn.Module]:
    """List the modules that timm, transformers or open_clip describe, the model itself or the outermost first."""
    names = set()
    for module in model.modules():
        config = getattr(module, "config", None)
        name = getattr(config, "_name_or_path", None)
        # The parts of a model of transformers share its config.
        if is_timm(module) or is_open_clip(module) or (config is not None and (name is None or name not in names)):
            names.add(name)
            yield module


def is_timm(module: nn.Module) -> bool:
    """Whether timm describes the module."""
    return hasattr(module, "pretrained_cfg") and type(module).__module__.startswith("timm.")


def is_open_clip(module: nn.Module) -> bool:
    """Whether open_clip describes the module."""
    return hasattr(getattr(module, "visual", None), "image_mean")


def measure_images(model: nn.Module, inner: nn.Module, size: tuple[int, int], channels: int) -> Affine | None:
    """Run the model on noise, and compare its images with those that a module of it gets.

    Args:
        inner: a module of `model`.
        size: height and width of the images.
        channels: number of channels of the images.

    Returns:
        None if `inner` does not run, or gets anything but the images with their channels scaled and shifted.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)).to(like)
    seen: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.extend(value.detach().clone() for value in (*inputs, *keywords.values()) if isinstance(value, Tensor))

    with preserve_model(model):
        handle = inner.register_forward_pre_hook(record, with_kwargs=True)
        try:
            model(noise.clone())
        except Exception as error:  # models raise errors of any type
            if out_of_memory(error):
                raise
            return None
        finally:
            handle.remove()
        return _fit(noise, seen[0]) if seen and seen[0].shape == noise.shape else None


def _fit(images: Tensor, changed: Tensor) -> Affine | None:
    x, y = (some[0].flatten(1).double() for some in (images, changed))
    scale = ((x - x.mean(1, keepdim=True)) * y).mean(1) / x.var(1, correction=0)
    shift = y.mean(1) - scale * x.mean(1)
    error = (scale[:, None] * x + shift[:, None] - y).abs().amax()
    if not (scale > 0).all() or not error <= _TOLERANCE * y.abs().amax():
        return None
    return Affine(tuple(scale.tolist()), tuple(shift.tolist()))
