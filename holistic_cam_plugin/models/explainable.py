"""What `HolisticCAM` needs of a model, found by running the model on noise."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.errors import near_matches, out_of_memory
from holistic_cam_plugin.models.image_text import EXAMPLE, TextLogits, bind_texts, find_lacking_inputs, is_image_text
from holistic_cam_plugin.models.layers import Layer, build_reshape_transform
from holistic_cam_plugin.models.logits import Logits, return_logits
from holistic_cam_plugin.models.preprocessing import Preprocessing, find_preprocessing
from holistic_cam_plugin.models.probe import (
    SIZE_ERRORS,
    find_size_multiple,
    make_noise,
    preserve_model,
)
from holistic_cam_plugin.models.stages import find_layers
from holistic_cam_plugin.models.tokens import Tokenizer
from holistic_cam_plugin.passes.model_state import unwrap_model

__all__ = ["Explainable", "examine", "explainable"]

# Sides in pixels to try where the model has no size of its own.
COMMON_SIDES = (224, 256, 299, 384, 448, 512, 640, 128, 96, 64, 32, 28)


@dataclass(frozen=True, eq=False, repr=False)
class Explainable:
    """A model and what `HolisticCAM` needs of it, as `explainable` returns it.

    Attributes:
        model: the module to call on images; it returns logits. The given model, or a wrapper around it.
        target_layers: one layer for each of the last stages, shallow to deep.
        layer_names: their names in the given model.
        reshape_transform: converts what these layers return to `(B, C, h, w)`; None if they return that already.
        size: height and width in pixels of the images that the model ran on.
        multiple_of: 1 if the model runs at any size, n if both sides must grow by multiples of n, None if no other size
            runs.
        preprocessing: converts a picture to the model's input.
        classes: class names by index; None if the model does not know them.
        output_shape: shape of the output for one image: `(classes,)`, or `(classes, h, w)` of dense outputs.
        layers: all modules that return maps, in the order in which they finish.
        deepest: the last of the target layers found, which the class mask is made of; None if there is none.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> found = explainable(load_demo_model(), size=(64, 64))
        >>> found.at(["layer3.0.conv1", "layer4"])
        Explainable(DigitsResNet, layers=[layer3.0.conv1, layer4], size=(64, 64), multiple_of=1, ...)
    """

    model: nn.Module
    target_layers: list[nn.Module]
    layer_names: list[str]
    reshape_transform: Callable[..., Tensor] | None
    size: tuple[int, int]
    multiple_of: int | None
    preprocessing: Preprocessing
    classes: list[str] | None
    output_shape: tuple[int, ...]
    layers: list[Layer]
    deepest: Layer | None = None

    def __repr__(self) -> str:
        model = self.model.model if isinstance(self.model, Logits) else self.model
        names = textwrap.shorten(", ".join(self.layer_names), 120, placeholder=" ...")
        return (
            f"Explainable({type(model).__name__:.40}, layers=[{names}], size={self.size}, "
            f"multiple_of={self.multiple_of}, preprocessing={self.preprocessing.source!r}, "
            f"output_shape={self.output_shape})"
        )

    @property
    def layers_called_once(self) -> list[Layer]:
        """The layers that run once: of the others, only the first call could be explained."""
        return [layer for layer in self.layers if layer.calls == 1]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `HolisticCAM` that this model needs, and the layer of the class mask.

        `options | {"mask_layer": None}` leaves the mask to each target layer, as in the paper.
        """
        needed: dict[str, Any] = {"reshape_transform": self.reshape_transform} if self.reshape_transform else {}
        if self.multiple_of is None:
            needed["tiles"] = True
        elif self.multiple_of > 1:
            needed["multiple_of"] = self.multiple_of
        if self.deepest is not None:
            needed["mask_layer"] = self.deepest.module
        return needed

    def at(self, names: Sequence[str]) -> Explainable:
        """Return a copy with other target layers.

        Args:
            names: names of modules in the given model.

        Raises:
            ValueError: a layer does not exist or returns no maps, or no reshape transform fits all layers.
        """
        by_name = {layer.name: layer for layer in self.layers}
        for name in names:
            if name not in by_name:
                raise ValueError(self._describe_error(name))
        layers = [by_name[name] for name in names]
        deepest = self.deepest
        try:
            reshape = build_reshape_transform(layers, self.size)
        except ValueError as error:
            raise ValueError(f"{', '.join(names)}: {error}") from error
        if deepest is not None:
            try:
                reshape = build_reshape_transform([*layers, deepest], self.size)
            except ValueError:  # no reshape transform fits all of them
                deepest = None
        modules = [layer.module for layer in layers]
        return replace(self, target_layers=modules, layer_names=list(names), reshape_transform=reshape, deepest=deepest)

    def _describe_error(self, name: str) -> str:
        model = self.model.model if isinstance(self.model, Logits) else self.model
        names = [known for known, _ in model.named_modules() if known]
        if name not in names:
            return f"the model has no layer {name!r}{near_matches(name, names)}"
        return f"the layer {name!r} returns neither maps (B, C, h, w) nor tokens (B, N, C)"


def explainable(
    model: nn.Module,
    processor: Any = None,
    *,
    size: tuple[int, int] | None = None,
    text: Sequence[str] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Explainable:
    """Find out what `HolisticCAM` needs of a classifier of torchvision, timm, transformers, or of your own.

    The model runs on noise about ten times, which shows the modules that return maps, those among them that explain the
    best score, and the sizes that the model accepts. It is left unchanged.

    Args:
        model: a classifier on any device, in any floating-point dtype. It returns a tensor of logits `(B, classes)`, or
            a dict or `ModelOutput` with `logits`.
        processor: an image processor of transformers, the transforms of torchvision's weights, or a `Preprocessing`. By
            default, what timm and transformers store with the model. Models of torchvision store nothing: the usual
            normalisation of ImageNet is assumed, and `preprocessing.source` is `"assumed"`.
        size: height and width of the images in pixels. By default, the model's own size or a common one.
        text: the classes of a model of images and texts, such as CLIP and SigLIP of transformers and open_clip: each
            text is explained against the others. The texts are encoded once.
        tokenizer: for `text`: a tokenizer of transformers, or a function from a list of strings to token ids `(N, L)`.
            By default, the processor's, or what transformers or open_clip store with the model.

    Raises:
        TypeError: `model` is not a module, `processor` is of an unknown type, or the output has no logits (a
            detector's); the message says what to write instead. Or `text` is missing, or not meant for this model.
        ValueError: the model runs at none of the sizes, or no layer explains its score. Or a text is empty, given twice
            or too long, or there is no tokenizer.

    Example:
        >>> from holistic_cam_plugin import HolisticCAM, explainable
        >>> from holistic_cam_plugin.demo import load_demo_image, load_demo_model
        >>> found = explainable(load_demo_model())
        >>> found.layer_names, found.size, [*found.options]
        (['layer1', 'layer2', 'layer3', 'layer4'], (224, 224), ['mask_layer'])
        >>> cam = HolisticCAM(found.model, found.target_layers[-1:], sizes=[224], **found.options)
        >>> cam(found.preprocessing(load_demo_image())).shape
        (1, 224, 224)
    """
    found = examine(model, processor, size=size, text=text, tokenizer=tokenizer)
    if not found.target_layers:
        raise ValueError(
            f"no layer of this {type(model).__name__} returns maps that explain its best score (are its weights "
            "loaded?): choose a layer yourself, and call HolisticCAM(model, [layer])"
        )
    return found


def examine(
    model: nn.Module,
    processor: Any = None,
    *,
    size: tuple[int, int] | None = None,
    text: Sequence[str] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Explainable:
    """`explainable`, but without target layers where no layer explains the model's score."""
    model = unwrap_model(model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")
    if text is None and is_image_text(model):
        raise TypeError(f"{type(model).__name__} compares images with texts: pass explainable(model, {EXAMPLE})")
    with preserve_model(model):
        taken = model if text is None else bind_texts(model, text, processor, tokenizer)
        image, output = _run_first_size(taken, list(_list_sizes(taken)) if size is None else [size])
        called = return_logits(taken, output)
        own = (image.shape[2], image.shape[3])
        logits = output if isinstance(output, Tensor) else output["logits"]
        layers, targets = find_layers(called, image, logits.shape[1])
        multiple_of = find_size_multiple(called, own)
    if called is not model:
        layers, targets = (list(map(_rename_unwrapped, found)) for found in (layers, targets))
    return Explainable(
        called,
        [layer.module for layer in targets],
        [layer.name for layer in targets],
        build_reshape_transform(targets, own) if targets else None,
        own,
        multiple_of,
        find_preprocessing(model, processor, own, image.shape[1]),
        taken.texts if isinstance(taken, TextLogits) else _read_classes(model),
        tuple(logits.shape[1:]),
        layers,
        targets[-1] if targets else None,
    )


def _rename_unwrapped(layer: Layer) -> Layer:
    """Name a layer of `Logits` as in the wrapped model."""
    return layer._replace(name=layer.name.removeprefix("model."))


def _list_sizes(model: nn.Module) -> Iterator[tuple[int, int]]:
    """List the sizes to try, the model's own ones first."""
    sizes = [getattr(getattr(model, "config", None), "image_size", None), getattr(model, "image_size", None)]
    sizes += [getattr(module, "img_size", None) for module in model.modules()]
    sizes.append((getattr(model, "pretrained_cfg", None) or {}).get("input_size"))
    for sides in (*sizes, *COMMON_SIDES):
        if isinstance(sides, int):
            yield sides, sides
        elif isinstance(sides, (tuple, list)) and len(sides) >= 2:
            yield sides[-2], sides[-1]


def _run_first_size(model: nn.Module, sizes: list[tuple[int, int]]) -> tuple[Tensor, Any]:
    """Run the model at the first size that it accepts; return the image and the output."""
    reasons = {}
    for size in dict.fromkeys(sizes):
        try:
            image = make_noise(model, size)
            return image, model(image)
        except (*SIZE_ERRORS, AttributeError) as error:
            if out_of_memory(error):
                raise
            reasons[size] = error
    size, reason = next(iter(reasons.items()))
    if lacking := find_lacking_inputs(model, reason):
        raise TypeError(
            f"the model does not run on images alone ({reason}), its forward takes {', '.join(lacking)}, too: wrap it "
            "in a module that adds them (a model with encode_image and encode_text takes text=)"
        ) from reason
    others = f", nor at {len(reasons) - 1} other sizes" if len(reasons) > 1 else ""
    raise ValueError(
        f"the model does not run on images (1, C, H, W) of {size[0]}x{size[1]} px ({reason}){others}: pass "
        "explainable(model, size=(height, width))"
    ) from reason


def _read_classes(model: nn.Module) -> list[str] | None:
    """Read the class names by index from the config of a model of transformers or timm."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if labels:
        names = [str(labels[index]) for index in sorted(labels)]
        return None if names == [f"LABEL_{index}" for index in range(len(names))] else names
    config = getattr(model, "pretrained_cfg", None) or {}
    outputs = getattr(model, "num_classes", None)
    if named := config.get("label_names"):
        return list(named) if len(named) == outputs else None
    if type(model).__module__.startswith("timm.") and outputs == config.get("num_classes"):
        data: Any = import_module("timm.data")
        if subset := data.infer_imagenet_subset(model):
            info = data.ImageNetInfo(subset)
            return [info.index_to_description(index) for index in range(info.num_classes())]
    return None
