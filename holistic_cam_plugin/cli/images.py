"""Images of the command line: from a file to the model's input and back to something to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import functional as TF

from holistic_cam_plugin.cli.errors import UsageError, check_file
from holistic_cam_plugin.cli.models import Classifier

__all__ = ["preprocessed", "read_image", "shown"]


def read_image(path: Path) -> Image.Image:
    """An RGB image, upright.

    Raises:
        UsageError: no such file (near matches are named), or no image.
    """
    check_file(path)
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} can't be read as an image: {error}") from error


def preprocessed(image: Image.Image, classifier: Classifier) -> Tensor:
    """`(1, 3, H, W)`: resized, cropped and normalised as for the model's training."""
    resized = TF.resize(image, [classifier.resize], antialias=True)
    pixels = TF.to_tensor(TF.center_crop(resized, [classifier.size])).to(classifier.mean.device)
    normalized: Tensor = (pixels - classifier.mean) / classifier.std
    return normalized[None]


def shown(images: Tensor, classifier: Classifier) -> NDArray[np.float32]:
    """The model's input as an RGB picture: `(H, W, 3)`, float32, in [0, 1]."""
    pixels = (images[0] * classifier.std + classifier.mean).clamp(0, 1)
    picture: NDArray[np.float32] = pixels.permute(1, 2, 0).cpu().numpy()
    return picture
