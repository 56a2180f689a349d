"""Find a model's preprocessing: what timm, transformers, torchvision or open_clip store with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn
from torchvision.transforms.v2 import InterpolationMode

from holistic_cam_plugin.models.preprocessing import ASSUMED, Preprocessing
from holistic_cam_plugin.models.wrappers import is_open_clip, is_timm, list_described, measure_images

__all__ = ["find_preprocessing", "load_processor", "load_stored"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The usual fraction of the resized image that is kept: 224 of 256 px.
_CROP = 224 / 256
# File names of transformers.
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


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
