"""Preprocess pictures of scenes for the bundled classifier."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["SCENE_MEAN", "SCENE_STD", "preprocess"]

# For values in [0, 1]: the defaults of pytorch_grad_cam.utils.image.preprocess_image.
SCENE_MEAN = (0.5, 0.5, 0.5)
SCENE_STD = (0.5, 0.5, 0.5)


def preprocess(images: Image.Image | NDArray[np.float32]) -> Tensor:
    """Convert a picture, or RGB values in [0, 1], `(3, H, W)` or `(B, 3, H, W)`, to input `(B, 3, H, W)`, float32."""
    if isinstance(images, Image.Image):
        images = np.asarray(images.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
    batch = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    batch = batch[None] if batch.ndim == 3 else batch
    mean, std = (torch.tensor(values)[:, None, None] for values in (SCENE_MEAN, SCENE_STD))
    return (batch - mean) / std
