"""Models that take patches of images instead of images, as SigLIP 2 with any aspect ratio."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from holistic_cam_plugin.models.logits import Logits

__all__ = ["PatchLogits", "cut_patches", "read_patches_side", "takes_patches"]


class PatchLogits(Logits):
    """Compute the logits of images with a classifier of patches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, {})

    @property
    def image_size(self) -> int | None:
        """Side in pixels of square images with as many patches as the model's positions."""
        return read_patches_side(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits `(B, classes)`."""
        logits: Tensor = self.model(**cut_patches(self.model, images))[self.name]
        return logits


def takes_patches(function: Callable[..., Any]) -> bool:
    """Whether a method of a model takes patches with their positions."""
    return "spatial_shapes" in inspect.signature(function).parameters


def read_patches_side(model: Any) -> int | None:
    """Read the side in pixels of square images that fill the model's positions; None if it takes images."""
    vision: Any = getattr(getattr(model, "config", None), "vision_config", None)
    count = getattr(vision, "num_patches", None)
    return None if count is None else int(round(count**0.5) * vision.patch_size)


def cut_patches(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Cut images into the patches that a model of transformers takes, `(B, h w, p p C)`.

    Raises:
        ValueError: height or width is not a multiple of the patches' side.
    """
    side = model.config.vision_config.patch_size
    if images.shape[2] % side or images.shape[3] % side:
        raise ValueError(f"height and width must be multiples of {side}, got {tuple(images.shape[2:])}")
    patches = images.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 4, 5, 1)
    batch, height, width = patches.shape[:3]
    return {
        "pixel_values": patches.reshape(batch, height * width, -1),
        "pixel_attention_mask": torch.ones(batch, height * width, dtype=torch.int64, device=images.device),
        "spatial_shapes": torch.tensor([[height, width]] * batch, device=images.device),
    }
