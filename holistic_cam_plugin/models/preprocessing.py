"""Preprocessing of pictures for a model, as timm, transformers or torchvision describe it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
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

from holistic_cam_plugin.models.wrappers import Affine, is_open_clip, is_timm, list_described, measure_images

__all__ = ["ASSUMED", "TELL_ASSUMED", "Preprocessing", "find_preprocessing", "load_processor", "load_stored"]

ASSUMED = "assumed"
TELL_ASSUMED = "the model does not tell its preprocessing, and the usual one of ImageNet is assumed"

Picture = TypeVar("Picture")  # a picture, or boxes or masks in it

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The usual fraction of the resized image that is kept: 224 of 256 px.
_CROP = 224 / 256
# File names of transformers.
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


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


def find_preprocessing(model: nn.Module, processor: Any, size: tuple[int, int], channels: int) -> Preprocessing:
    """Find the preprocessing for a model.

    Args:
        model: where to look without a `processor`: timm's data config, or the image processor in the local folder or
            the cache that a model of transformers came from. The model may be inside of a wrapper: if that one
            normalises the images itself, mean and standard deviation are those that remain to be done, such as 0 and 1.
        processor: an image processor of transformers, the transforms of torchvision's weights, a `Preprocessing`, or
            None.
        size: height and width of the model's images, for a source that has none.
        channels: number of channels of the images.

    Raises:
        TypeError: the processor is of another type.
    """
    if processor is not None:
        found: Preprocessing | None = _read_processor(processor, size)
    else:
        found = _read_wrapped(model, size, channels)
    if found is None or len(found.mean) != channels:
        mean, std = (values if channels == 3 else (0.5,) * channels for values in (IMAGENET_MEAN, IMAGENET_STD))
        found = Preprocessing(mean, std, size, round(min(size) / _CROP), "bilinear", ASSUMED)
    return found


def _read_wrapped(model: nn.Module, size: tuple[int, int], channels: int) -> Preprocessing | None:
    """Read what a library tells of the model or, corrected by what the wrapper does, of a model inside of it."""
    for inner in list_described(model):
        found = _read_source(inner, size)
        if found is None or inner is model:
            if found is not None:
                return found
            continue
        if len(found.mean) == channels and (images := measure_images(model, inner, size, channels)):
            return found.before(images)
    return None


def _read_source(model: nn.Module, size: tuple[int, int]) -> Preprocessing | None:
    if is_timm(model):
        return _read_timm(model, size)
    if is_open_clip(model):
        return _read_open_clip(model.visual, size)
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    processor = load_processor(name) if name else None
    return None if processor is None else _read_processor(processor, size)


def _read_processor(processor: Any, size: tuple[int, int]) -> Preprocessing:
    processor = getattr(processor, "image_processor", processor)  # beside a tokenizer
    if isinstance(processor, Preprocessing):
        return processor
    if hasattr(processor, "image_mean"):
        return _read_transformers(processor, size)
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


def _read_timm(model: nn.Module, size: tuple[int, int]) -> Preprocessing:
    data: Any = import_module("timm.data")
    config = data.resolve_model_data_config(model)
    sides = [math.floor(side / config["crop_pct"]) for side in size]
    resize = (sides[0], sides[1]) if config["crop_mode"] == "squash" or sides[0] != sides[1] else sides[0]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return Preprocessing(mean, std, size, resize, config["interpolation"], "timm")


def _read_open_clip(visual: Any, size: tuple[int, int]) -> Preprocessing:
    config = getattr(visual, "preprocess_cfg", {})
    resize = size if config.get("resize_mode") == "squash" else min(size)
    interpolation = "bilinear" if config.get("interpolation") == "bilinear" else "bicubic"
    return Preprocessing(tuple(visual.image_mean), tuple(visual.image_std), size, resize, interpolation, "open_clip")


def _read_transformers(processor: Any, size: tuple[int, int]) -> Preprocessing:
    resize = _read_size(getattr(processor, "size", None)) if getattr(processor, "do_resize", True) else None
    if hasattr(processor, "max_num_patches"):  # SigLIP 2 takes any aspect ratio
        resize = min(size)
    crop = _read_size(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", False) else None
    share = getattr(processor, "crop_pct", None)
    if isinstance(resize, int) and crop is None:
        # ConvNeXT's: small sizes are cropped from larger ones, others are resized without keeping the aspect ratio.
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


def _read_size(size: Any) -> int | tuple[int, int] | None:
    """Convert `{"height": h, "width": w}`, `{"shortest_edge": n}` or a number to `Preprocessing.resize`."""
    if size is None or isinstance(size, int):
        return size
    sides = {name: value for name, value in dict(size).items() if value is not None}
    if "height" in sides:
        return sides["height"], sides["width"]
    edge: int | None = sides.get("shortest_edge")
    return edge


def load_processor(name: str, *, download: bool = False) -> Any:
    """Load the image processor that is stored with a model of transformers; None if there is none.

    Args:
        name: a folder, or a model on the Hugging Face Hub.
        download: download it if it is not in the cache.
    """
    return load_stored("AutoImageProcessor", name, _PROCESSOR_FILES, download)


def load_stored(kind: str, name: str, files: Sequence[str], download: bool) -> Any:
    """Load what transformers stores with a model; None if there is none.

    Args:
        kind: a class of transformers that has `from_pretrained`.
        name, download: as in `load_processor`.
        files: one of these is in a folder that has it.
    """
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in files):
        return None
    try:
        transformers: Any = import_module("transformers")
        return getattr(transformers, kind).from_pretrained(name, local_files_only=not download)
    except OSError:  # neither in the cache nor on the Hub
        return None
