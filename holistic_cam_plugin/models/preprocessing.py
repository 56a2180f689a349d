"""Preprocessing of pictures for a model, as timm, transformers or torchvision describe it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from holistic_cam_plugin.models.wrappers import Affine

__all__ = ["ASSUMED", "TELL_ASSUMED", "Preprocessing"]

ASSUMED = "assumed"
TELL_ASSUMED = "the model does not tell its preprocessing, and the usual one of ImageNet is assumed"

Picture = TypeVar("Picture")  # a picture, or boxes or masks in it


class Preprocessing(NamedTuple):
    """Resize, crop and normalise a picture for a model.

    Attributes:
        mean, std: of each channel, for values in [0, 1].
        size: height and width in pixels of the centre crop.
        resize: the shorter side, or height and width, in pixels before the crop; None to keep the picture's size.
        interpolation: how the picture is resized, such as `"bilinear"`.
        source: who describes it: `"timm"`, `"transformers"`, `"torchvision"`, `"open_clip"`, `"bundled"`, or nobody,
            `"assumed"`: the mean and standard deviation of ImageNet, or 0.5 for a number of channels other than three.

    Example:
        >>> from PIL import Image
        >>> preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, (224, 224), 256, "bilinear", "torchvision")
        >>> preprocessing(Image.new("RGB", (640, 480))).shape
        torch.Size([1, 3, 224, 224])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str
    source: str

    def __call__(self, picture: Image.Image) -> Tensor:
        """Convert a picture to the model's input `(1, C, H, W)`, float32; to gray if the model has one channel.

        Warns if the preprocessing is assumed.
        """
        if self.source == ASSUMED:
            warnings.warn(f"{TELL_ASSUMED}: pass explainable(model, processor)", stacklevel=2)
        return self.to_tensor(picture)

    def to_tensor(self, picture: Image.Image) -> Tensor:
        """Convert a picture as `__call__` does, without a warning."""
        return self.normalize(torch.from_numpy(self.to_pixels(picture))[None])

    def to_pixels(self, picture: Image.Image, *, crop: bool = True) -> NDArray[np.uint8]:
        """Convert a picture to resized and cropped pixels `(H, W, 3)`, which are gray if the model has one channel.

        Args:
            crop: False to keep the whole picture.
        """
        cropped = self.resize_and_crop(picture.convert("L" if len(self.mean) == 1 else "RGB"), crop=crop)
        return np.array(cropped.convert("RGB"))

    def resize_and_crop(self, picture: Picture, *, crop: bool = True) -> Picture:
        """Resize a picture, or boxes or masks in one (`torchvision.tv_tensors`), and crop its centre."""
        if self.resize is not None:
            sides = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            picture = TF.resize(picture, sides, InterpolationMode(self.interpolation), antialias=True)
        return TF.center_crop(picture, list(self.size)) if crop else picture

    def find_crop(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Find the part of a picture of this size that the model sees.

        Returns:
            Left, top, right and bottom in the picture's pixels. Beyond its edges if the crop is larger than the resized
            picture, which `resize_and_crop` then pads.
        """
        columns, rows = width, height
        if isinstance(self.resize, int):
            short = self.resize
            columns, rows = (short, short * height // width) if width <= height else (short * width // height, short)
        elif self.resize is not None:
            rows, columns = self.resize
        top, bottom = _find_centre(rows, self.size[0])
        left, right = _find_centre(columns, self.size[1])
        return left * width / columns, top * height / rows, right * width / columns, bottom * height / rows

    def enlarge(self, times: int) -> Preprocessing:
        """Return the preprocessing to the same crop in `times` as many pixels per side, if it resizes at all."""
        if self.resize is None:
            return self
        size, resize = (times * self.size[0], times * self.size[1]), self.resize
        return self._replace(
            size=size, resize=times * resize if isinstance(resize, int) else (times * resize[0], times * resize[1])
        )

    def before(self, images: Affine) -> Preprocessing:
        """Return the preprocessing for a wrapper that scales and shifts the images before the model gets them."""
        pairs = list(zip(self.mean, self.std, images.scale, images.shift, strict=True))
        return self._replace(
            mean=tuple(round(m + shift * s, 6) + 0.0 for m, s, _, shift in pairs),
            std=tuple(float(f"{scale * s:.6g}") for _, s, scale, _ in pairs),
        )

    def to_json(self) -> dict[str, object]:
        """Convert to values that JSON can represent."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Convert the output of `to_json` back.

        Raises:
            TypeError, AttributeError: `fields` is something else.
        """
        read: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
        return cls(**read)

    def resized_area(self, width: int, height: int) -> int:
        """Number of pixels of a picture of this size after it is resized."""
        if self.resize is None:
            return width * height
        if isinstance(self.resize, int):
            return self.resize**2 * max(width, height) // min(width, height)
        return math.prod(self.resize)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Convert pixels `(B, H, W, 3)`, uint8, to the model's input `(B, C, H, W)`, float32."""
        mean, std = self._get_statistics(pixels)
        channels = pixels.permute(0, 3, 1, 2)[:, : len(mean)].contiguous()
        images: Tensor = (channels.float().div(255) - mean) / std
        return images

    def denormalize(self, images: Tensor) -> NDArray[np.float32]:
        """Convert the first of the model's inputs `(B, C, H, W)` to RGB values `(H, W, 3)`, float32, in [0, 1]."""
        mean, std = self._get_statistics(images)
        pixels = (images[0] * std + mean).clamp(0, 1).expand(3, -1, -1)
        picture: NDArray[np.float32] = pixels.permute(1, 2, 0).cpu().numpy()
        return picture

    def _get_statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, device=like.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std


def _find_centre(side: int, crop: int) -> tuple[int, int]:
    """Where torchvision's `center_crop` starts and ends on one axis."""
    start = round((side - crop) / 2) if crop <= side else -((crop - side) // 2)
    return start, start + crop
