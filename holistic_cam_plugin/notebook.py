"""From a photograph to a picture of its maps in one call, for notebooks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from holistic_cam_plugin.checks import is_integer, is_number
from holistic_cam_plugin.display.photo_maps import PhotoMaps
from holistic_cam_plugin.errors import builtin_errors
from holistic_cam_plugin.methods import Method, Progress, compute_maps, has_pyramid
from holistic_cam_plugin.models.build import build_model
from holistic_cam_plugin.models.classes import check_class, find_classes
from holistic_cam_plugin.models.classifier import choose_device
from holistic_cam_plugin.models.explainable import Explainable, explainable
from holistic_cam_plugin.models.images import check_proportions, convert_to_rgb, read_image
from holistic_cam_plugin.models.preprocessing import ASSUMED, TELL_ASSUMED
from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.names import COLORMAP, COLORMAPS, SCALES, find_method
from holistic_cam_plugin.passes.model_state import eval_mode, keep_parameters

__all__ = ["show"]

Target = int | str


def show(
    model: nn.Module | Explainable | str,
    photo: Image.Image | str | os.PathLike[str],
    target: Target | Sequence[Target] | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    method: str = "classholisticcam",
    text: Sequence[str] | None = None,
    scale: str = "linear",
    colormap: str = COLORMAP,
    opacity: float = 0.6,
    progress: Progress | None = None,
    **options: Any,
) -> PhotoMaps:
    """Explain a classifier's decision on a photograph, and show the maps over the photograph itself.

    Args:
        model: a classifier that `explainable` accepts, what `explainable` returns, or a name as on the command line,
            such as `"resnet50"`, `"timm/convnext_tiny.in12k_ft_in1k"` or `"efficientnet_lite0"`. A module is examined
            in every call: for several photographs pass `explainable(model)`.
        photo: a picture, or the path of one, of any size.
        target: a class, by its index or its name, or several. By default, the predicted class is explained.
        layers: names of the target layers. By default, the last but one of those that `explainable` finds.
        method: a name as on the command line, such as `"gradcam++"`.
        text: the classes of a model of images and texts, as in `explainable`.
        scale: of the colours: `"linear"`, `"sqrt"` or `"rank"`.
        colormap: such as `"inferno"`, `"viridis"` or `"jet"`.
        opacity: of the map over the photograph, in [0, 1].
        progress: a wrapper for the loop over scales, for example `tqdm.auto.tqdm`.
        options: keywords of `HolisticCAM`, such as `sizes="paper"`, for the methods that take them.

    Returns:
        Maps that a notebook displays. `maps` are those at the photograph's size, and `save` writes the picture.

    Raises:
        TypeError, ValueError: an invalid argument, a model that is no classifier, or a photograph that cannot be read;
            the message says what to do.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_image
        >>> shown = show("digits", load_demo_image(), "digit 9", layers=["layer2", "layer4"])
        >>> shown
        PhotoMaps(224 x 224 px: digit 9, 97 %; layers layer2, layer4)
        >>> shown.save("digit.png")
    """
    style = _check_style(scale, colormap, opacity)
    chosen = Method(find_method(method), options)
    if options and not has_pyramid(chosen.key):
        raise TypeError(f"{chosen.name} takes no options, got {', '.join(options)}")
    picture = _read_photo(photo)
    found = _examine(model, text)
    found = found.at(_choose_layers(found, layers))
    if found.preprocessing.source == ASSUMED:
        warnings.warn(f"{TELL_ASSUMED}: pass show(explainable(model, processor), photo)", stacklevel=2)
    with builtin_errors():
        check_proportions(picture.size, found.preprocessing)
    like = next((p for p in found.model.parameters() if p.is_floating_point()), torch.zeros(0))
    images = found.preprocessing.to_tensor(picture).to(like)
    classes = found.classes or [f"class {index}" for index in range(found.output_shape[0])]
    requested = None if target is None else _find_targets(target, classes)
    scores = _score(found.model, images)
    targets = [int(scores.argmax())] if requested is None else requested
    with keep_parameters(found.model), eval_mode(found.model):
        maps = compute_maps(
            chosen, found.model, found.target_layers, images, [[ClassifierOutputTarget(one) for one in targets]],
            needed=found.options, progress=progress,
        )  # fmt: skip
    crop = found.preprocessing.find_crop(*picture.size)
    return PhotoMaps(picture, crop, maps, found.layer_names, targets, classes, scores, style)


def _check_style(scale: str, colormap: str, opacity: float) -> dict[str, Any]:
    for name, value, known in (("scale", scale, SCALES), ("colormap", colormap, COLORMAPS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if not is_number(opacity) or not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be a number from 0 to 1, got {opacity!r}")
    return {"scale": scale, "colormap": colormap, "opacity": opacity}


def _read_photo(photo: Any) -> Image.Image:
    if isinstance(photo, Image.Image):
        photo.load()  # otherwise `convert_to_rgb` reduces a large JPEG, which is the caller's
        return convert_to_rgb(photo)
    if not isinstance(photo, (str, os.PathLike)):
        raise TypeError(f"photo must be a PIL image or a path, got a {type(photo).__name__}")
    with builtin_errors():
        return read_image(Path(photo))


def _examine(model: Any, text: Sequence[str] | None) -> Explainable:
    if isinstance(model, Explainable):
        if text is not None:
            raise TypeError("text is an argument of explainable: pass show(explainable(model, text=...), photo)")
        found = model
    elif isinstance(model, str):
        with builtin_errors():
            built = build_model(model, None)
        module = built.model.eval().to(choose_device(None))
        size = None if built.size is None else (built.size, built.size)
        found = explainable(module, built.processor, size=size, text=text, tokenizer=built.tokenizer)
        found = replace(found, classes=built.classes or found.classes)
    else:
        found = explainable(model, text=text)
    if len(found.output_shape) != 1:
        shape = ", ".join(map(str, (1, *found.output_shape)))
        raise ValueError(f"a classifier returns (1, classes) for one image, but this model ({shape}): call HolisticCAM")
    if (channels := len(found.preprocessing.mean)) not in (1, 3):
        raise ValueError(f"this model takes images with {channels} channels, but a photograph has one or three")
    return found


def _choose_layers(found: Explainable, layers: str | Sequence[str] | None) -> Sequence[str]:
    if layers is None:
        return found.layer_names[-2:][:1]
    if not layers:
        raise ValueError("layers is empty: leave it out for one in the middle of the model")
    return [layers] if isinstance(layers, str) else layers


def _find_targets(target: Any, classes: Sequence[str]) -> list[int]:
    """Find the indices of one class or several, each once."""
    several: list[Any] = [target] if isinstance(target, str) or not isinstance(target, Sequence) else [*target]
    if not several:
        raise ValueError("target is empty: leave it out to explain the predicted class")
    found = []
    for one in several:
        if is_integer(one):
            with builtin_errors():
                found.append(check_class(int(one), classes))
        elif isinstance(one, str):
            with builtin_errors():
                found += find_classes([one], classes)
        else:
            raise TypeError(f"target must be the index or the name of a class, or a list of these, got {one!r:.100}")
    return list(dict.fromkeys(found))


def _score(model: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """Compute the outputs for one image; ValueError if they are not finite."""
    with preserve_model(model):
        scores: NDArray[np.float32] = model(images)[0].float().cpu().numpy()
    if not np.isfinite(scores).all():
        raise ValueError("the model returns NaN or infinite scores: there is nothing to explain")
    return scores
