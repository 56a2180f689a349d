"""Preprocessing: how an image becomes a model's input, as timm, transformers or torchvision describe it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

__all__ = ["Preprocessing", "found_preprocessing", "stored_processor"]

Pictured = TypeVar("Pictured")  # a picture, or what lies in it

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The usual share of the resized image that is kept, where nothing is known: 224 of 256 px.
_CROP = 224 / 256
# Where transformers keeps it in a folder.
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class Preprocessing(NamedTuple):
    """From a picture to a model's input.

    Attributes:
        mean, std: per channel, of values in [0, 1].
        size: height and width in pixels of what is cut out of the middle.
        resize: before that, the shorter side or height and width in pixels; None: not resized.
        interpolation: of resizing, such as `"bilinear"`.
        source: who says so: `"timm"`, `"transformers"`, `"torchvision"` or, where nobody does, `"assumed"`:
            ImageNet's mean and deviation, or 0.5 where there are not three channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str
    source: str

    def __call__(self, picture: Image.Image) -> Tensor:
        """The picture as `(1, channels, H, W)`, float32; gray for models of one channel."""
        return self.normalized(torch.from_numpy(self.pixels(picture))[None])

    def pixels(self, picture: Image.Image, *, crop: bool = True) -> NDArray[np.uint8]:
        """What the model sees of a picture, before it is normalised: `(H, W, 3)`, for models of one channel gray.

        Args:
            crop: False: the whole picture, resized.
        """
        seen = self.seen(picture.convert("L" if len(self.mean) == 1 else "RGB"), crop=crop)
        return np.array(seen.convert("RGB"))

    def seen(self, picture: Pictured, *, crop: bool = True) -> Pictured:
        """A picture resized, and its centre cut out; boxes and masks in it (`torchvision.tv_tensors`) follow it."""
        if self.resize is not None:
            sides = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            picture = TF.resize(picture, sides, InterpolationMode(self.interpolation), antialias=True)
        return TF.center_crop(picture, list(self.size)) if crop else picture

    def enlarged(self, times: int) -> Preprocessing:
        """The same cut-out of a picture in so many times the pixels both ways, as far as it is resized at all."""
        if self.resize is None:
            return self
        size, resize = (times * self.size[0], times * self.size[1]), self.resize
        return self._replace(
            size=size, resize=times * resize if isinstance(resize, int) else (times * resize[0], times * resize[1])
        )

    def to_json(self) -> dict[str, object]:
        """As JSON takes it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """What `to_json` gave.

        Raises:
            TypeError, AttributeError: it did not give this.
        """
        read: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
        return cls(**read)

    def resized_area(self, width: int, height: int) -> int:
        """Pixels of such a picture once it is resized."""
        if self.resize is None:
            return width * height
        if isinstance(self.resize, int):
            return self.resize**2 * max(width, height) // min(width, height)
        return math.prod(self.resize)

    def normalized(self, pixels: Tensor) -> Tensor:
        """The model's input `(B, channels, H, W)`, float32, from pixels `(B, H, W, 3)`, uint8."""
        mean, std = self._normalisation(pixels)
        channels = pixels.permute(0, 3, 1, 2)[:, : len(mean)].contiguous()
        images: Tensor = (channels.float().div(255) - mean) / std
        return images

    def shown(self, images: Tensor) -> NDArray[np.float32]:
        """The first of the model's inputs `(B, channels, H, W)` as an RGB picture: `(H, W, 3)`, float32, in [0, 1]."""
        mean, std = self._normalisation(images)
        pixels = (images[0] * std + mean).clamp(0, 1).expand(3, -1, -1)
        picture: NDArray[np.float32] = pixels.permute(1, 2, 0).cpu().numpy()
        return picture

    def _normalisation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, device=like.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std


def found_preprocessing(model: nn.Module, processor: Any, size: tuple[int, int], channels: int) -> Preprocessing:
    """The preprocessing that goes with a model.

    Args:
        model: asked where there is no `processor`: timm's data config, or the image processor in a local folder or
            cache that a `transformers` model came from.
        processor: an image processor of `transformers`, the transforms of torchvision's weights, a `Preprocessing`, or
            None.
        size: height and width that the model runs at, for what has none of its own.
        channels: of the images.

    Raises:
        TypeError: a processor of another kind.
    """
    found = _told(model, processor, size)
    if found is None or len(found.mean) != channels:
        mean, std = (values if channels == 3 else (0.5,) * channels for values in (IMAGENET_MEAN, IMAGENET_STD))
        found = Preprocessing(mean, std, size, round(min(size) / _CROP), "bilinear", "assumed")
    return found


def _told(model: nn.Module, processor: Any, size: tuple[int, int]) -> Preprocessing | None:
    if processor is not None:
        return _described(processor, size)
    if hasattr(model, "pretrained_cfg") and type(model).__module__.startswith("timm."):
        return _of_timm(model, size)
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    own = stored_processor(name) if name else None
    return None if own is None else _described(own, size)


def _described(processor: Any, size: tuple[int, int]) -> Preprocessing:
    if isinstance(processor, Preprocessing):
        return processor
    if hasattr(processor, "image_mean"):
        return _of_transformers(processor, size)
    if hasattr(processor, "crop_size") and hasattr(processor, "resize_size"):
        height, width = (list(processor.crop_size) * 2)[:2]
        resize = list(processor.resize_size)
        return Preprocessing(
            tuple(processor.mean),
            tuple(processor.std),
            (height, width),
            resize[0] if len(resize) == 1 else (resize[0], resize[1]),
            InterpolationMode(processor.interpolation).value,
            "torchvision",
        )
    raise TypeError(
        "processor must be an image processor of transformers or the transforms of torchvision's weights, "
        f"such as ResNet50_Weights.DEFAULT.transforms(), got a {type(processor).__name__}"
    )


def _of_timm(model: nn.Module, size: tuple[int, int]) -> Preprocessing:
    data: Any = import_module("timm.data")
    config = data.resolve_model_data_config(model)
    sides = [math.floor(side / config["crop_pct"]) for side in size]
    resize = (sides[0], sides[1]) if config["crop_mode"] == "squash" or sides[0] != sides[1] else sides[0]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Preprocessing(mean, std, size, resize, config["interpolation"], "timm")


def _of_transformers(processor: Any, size: tuple[int, int]) -> Preprocessing:
    resize = _sides(getattr(processor, "size", None)) if getattr(processor, "do_resize", True) else None
    crop = _sides(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", False) else None
    share = getattr(processor, "crop_pct", None)
    if isinstance(resize, int) and crop is None:
        # ConvNeXT's: small sizes are cut out of larger ones, others are reached without regard to the aspect.
        crop, resize = resize, (resize, resize) if share and resize >= 384 else math.floor(resize / (share or 1))
    height, width = (crop, crop) if isinstance(crop, int) else crop or (resize if isinstance(resize, tuple) else size)
    unit = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    normalize = getattr(processor, "do_normalize", True)
    mean, std = (processor.image_mean, processor.image_std) if normalize else ((0.0,) * 3, (1.0,) * 3)
    return Preprocessing(
        tuple(value / unit for value in mean),
        tuple(value / unit for value in std),
        (height, width),
        resize,
        Image.Resampling(getattr(processor, "resample", None) or Image.Resampling.BILINEAR).name.lower(),
        "transformers",
    )


def _sides(size: Any) -> int | tuple[int, int] | None:
    """`{"height": h, "width": w}`, `{"shortest_edge": n}` or a number, as `Preprocessing.resize` has it."""
    if size is None or isinstance(size, int):
        return size
    sides = {name: value for name, value in dict(size).items() if value is not None}
    if "height" in sides:
        return sides["height"], sides["width"]
    edge: int | None = sides.get("shortest_edge")
    return edge


def stored_processor(name: str, *, download: bool = False) -> Any:
    """The image processor beside a transformers model's weights; None: there is none.

    Args:
        name: of a folder, or of a model on the Hugging Face Hub.
        download: ask the Hub for one that is not in the cache.
    """
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _PROCESSOR_FILES):
        return None
    try:
        transformers: Any = import_module("transformers")
        return transformers.AutoImageProcessor.from_pretrained(name, local_files_only=not download)
    except OSError:  # neither in the cache nor on the Hub
        return None
