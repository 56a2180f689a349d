"""Models of images and texts, such as CLIP and SigLIP, as classifiers whose classes are texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.errors import describe_error, out_of_memory
from holistic_cam_plugin.models.logits import Logits
from holistic_cam_plugin.models.patches import cut_patches, read_patches_side, takes_patches
from holistic_cam_plugin.models.probe import SIZE_ERRORS, make_noise
from holistic_cam_plugin.models.tokens import Tokenizer, tokenize

__all__ = ["EXAMPLE", "TextLogits", "bind_texts", "check_texts", "find_image_text", "is_image_text"]

EXAMPLE = 'text=["a dog", "a cat"]'

# Names of the methods that encode images and texts: those of transformers; those of open_clip and OpenAI's clip.
_TRANSFORMERS = ("get_image_features", "get_text_features")
_OPEN_CLIP = ("encode_image", "encode_text")
_ANY_SIZE = "interpolate_pos_encoding"
_COMMON_SIDE = 224
# Largest difference from the model's own logits, relative to the largest one: bfloat16 rounds to 0.4 %.
_ROUNDING = 0.05


class TextLogits(Logits):
    """Compute the logits of images for texts, which were encoded once; gradients reach the image encoder only.

    Args:
        model: a model of images and texts.
        texts: the classes.
        features: features of the texts, normalised, `(texts, D)`.
        keywords: keyword arguments of the image encoder.
    """

    features: Tensor

    def __init__(self, model: nn.Module, texts: Sequence[str], features: Tensor, keywords: Mapping[str, Any]) -> None:
        super().__init__(model, keywords)
        self.texts = list(texts)
        # Not a weight: checksums of the model do not depend on the last bits of the features.
        self.register_buffer("features", features, persistent=False)

    @property
    def image_size(self) -> Any:
        """The image encoder's own size in pixels; None if it has none."""
        return _read_image_size(self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits `(B, texts)`."""
        features = F.normalize(_encode_images(self.model, images, self.keywords), dim=-1)
        model: Any = self.model
        logits: Tensor = model.logit_scale.exp() * (features @ self.features.to(features).T)
        bias = getattr(model, "logit_bias", None)
        return logits if bias is None else logits + bias


def is_image_text(model: nn.Module) -> bool:
    """Whether the model has an encoder of images and one of texts."""
    return any(_has_methods(model, names) for names in (_TRANSFORMERS, _OPEN_CLIP))


def find_image_text(model: nn.Module) -> str:
    """The name of the outermost module that has an encoder of images and one of texts; empty if there is none."""
    return next((name for name, module in model.named_modules() if is_image_text(module)), "")


def check_texts(text: Any) -> list[str]:
    """Return the texts as a list.

    Raises:
        TypeError: this is not a list of strings.
        ValueError: there is no text, or one is empty or occurs twice.
    """
    listed = isinstance(text, Sequence) and not isinstance(text, str)
    texts = list(text) if listed else []
    if not listed or not all(isinstance(one, str) for one in texts):
        raise TypeError(f"text must be a list of strings, such as {EXAMPLE}, got {text!r:.100}")
    if not texts:
        raise ValueError(f"text is empty: give at least one, such as {EXAMPLE}")
    for number, one in enumerate(texts):
        if not one.strip():
            raise ValueError(f"text {number} is empty: {texts!r:.200}")
        if one in texts[:number]:
            raise ValueError(f"the text {one!r:.100} is given twice")
    return texts


def bind_texts(
    model: nn.Module, text: Sequence[str], processor: Any = None, tokenizer: Tokenizer | None = None
) -> TextLogits:
    """Encode the texts, and wrap the model so that they are its classes. Call this inside `preserve_model`.

    Args:
        model: a model of transformers with `get_image_features` and `get_text_features`, or one with `encode_image` and
            `encode_text`, as those of open_clip. Both have `logit_scale`, a logarithm, and may have `logit_bias`.
        text: the classes.
        processor, tokenizer: where the tokens come from, as in `tokenize`.

    Raises:
        TypeError: this is no such model, or text is not a list of strings.
        ValueError: a text is empty, given twice or too long, the tokenizer is missing or does not fit, or the model
            computes its logits in another way.
    """
    texts = check_texts(text)
    name = type(model).__name__
    if not is_image_text(model):
        if inner := find_image_text(model):
            raise TypeError(f"{name} wraps a model of images and texts: pass that one, its module {inner!r}")
        raise TypeError(f"{name} does not compare images with texts, as CLIP does: leave out text=")
    if not isinstance(getattr(model, "logit_scale", None), Tensor):
        raise TypeError(f"{name} has no logit_scale: wrap it in a module that returns the logits of images")
    device = next((tensor.device for tensor in model.parameters()), None)
    tokens = {key: ids.to(device) for key, ids in tokenize(model, texts, processor, tokenizer).items()}
    run = _run_transformers if _has_methods(model, _TRANSFORMERS) else _run_open_clip
    try:
        return run(model, texts, tokens)
    except SIZE_ERRORS as error:
        if out_of_memory(error) or isinstance(error, _OtherLogitsError):
            raise
        raise ValueError(
            f"{name} cannot encode these texts: {describe_error(error)} (is this its tokenizer?)"
        ) from error


class _OtherLogitsError(ValueError):
    """The model's own logits differ from those of `TextLogits`."""


def _run_transformers(model: Any, texts: Sequence[str], tokens: Mapping[str, Tensor]) -> TextLogits:
    """Run the model once on noise and the texts, and compare its logits with those of the wrapper."""
    keywords = {_ANY_SIZE: True} if _ANY_SIZE in _list_parameters(model.get_image_features) else {}
    side = _read_image_size(model) or _COMMON_SIDE
    noise = make_noise(model, (side, side) if isinstance(side, int) else (side[0], side[1]), channels=3)
    known = _list_parameters(model.get_text_features)
    output = model(**_convert_images(model, noise), **{key: ids for key, ids in tokens.items() if key in known})
    wrapped = TextLogits(model, texts, _copy(F.normalize(output.text_embeds, dim=-1)), keywords)
    _compare_logits(model, output.logits_per_image, wrapped(noise))
    return wrapped


def _run_open_clip(model: Any, texts: Sequence[str], tokens: Mapping[str, Tensor]) -> TextLogits:
    """Encode the texts, and compare what the model itself returns for noise with the wrapper, as far as it is known."""
    ids = tokens["input_ids"]
    wrapped = TextLogits(model, texts, _copy(F.normalize(model.encode_text(ids), dim=-1)), {})
    side = _read_image_size(model) or _COMMON_SIDE
    noise = make_noise(model, (side, side) if isinstance(side, int) else (side[0], side[1]), channels=3)
    try:
        output = model(noise, ids)
    except SIZE_ERRORS:  # it has no such forward
        return wrapped
    returned = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else (output,)
    logits = next((part for part in returned if isinstance(part, Tensor) and part.shape == (1, len(texts))), None)
    if logits is not None:
        _compare_logits(model, logits, wrapped(noise))
    return wrapped


def _compare_logits(model: nn.Module, own: Tensor, ours: Tensor) -> None:
    own, ours = own.float(), ours.float()
    if own.shape != ours.shape or not torch.allclose(ours, own, rtol=0, atol=_ROUNDING * float(own.abs().max())):
        raise _OtherLogitsError(
            f"the logits of {type(model).__name__} are not exp(logit_scale) times the cosine plus logit_bias: wrap it "
            "in a module that returns the logits of images"
        )


def _copy(features: Tensor) -> Tensor:
    """Copy a tensor of inference mode to one that autograd accepts."""
    with torch.inference_mode(False), torch.no_grad():
        return features.clone()


def _encode_images(model: Any, images: Tensor, keywords: Mapping[str, Any]) -> Tensor:
    """Compute the features `(B, D)` of images `(B, C, H, W)`."""
    if not _has_methods(model, _TRANSFORMERS):
        features: Tensor = model.encode_image(images)
        return features
    output = model.get_image_features(**_convert_images(model, images), **keywords)
    return output if isinstance(output, Tensor) else output.pooler_output


def _convert_images(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Convert images to the arguments of transformers' models."""
    return cut_patches(model, images) if takes_patches(model.get_image_features) else {"pixel_values": images}


def _read_image_size(model: Any) -> Any:
    if side := read_patches_side(model):
        return side
    vision: Any = getattr(getattr(model, "config", None), "vision_config", None) or getattr(model, "visual", None)
    return getattr(vision, "image_size", None) or getattr(vision, "input_resolution", None)


def _has_methods(model: nn.Module, names: Sequence[str]) -> bool:
    return all(callable(getattr(model, name, None)) for name in names)


def _list_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
