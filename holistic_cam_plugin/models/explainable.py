"""What `HolisticCAM` needs of a model, found by running the model on noise."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.errors import near_matches
from holistic_cam_plugin.models.check_geometry import trust_layers
from holistic_cam_plugin.models.classes import read_classes
from holistic_cam_plugin.models.image_text import EXAMPLE, TextLogits, bind_texts, find_image_text, is_image_text
from holistic_cam_plugin.models.layers import Layer, build_reshape_transform
from holistic_cam_plugin.models.logits import Logits, return_logits
from holistic_cam_plugin.models.maps import find_scaling_maps
from holistic_cam_plugin.models.patches import PatchLogits, takes_patches
from holistic_cam_plugin.models.preprocessing import Preprocessing
from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.models.processors import find_preprocessing
from holistic_cam_plugin.models.sizes import run_first_size
from holistic_cam_plugin.models.stages import choose_target_layers
from holistic_cam_plugin.models.tokens import Tokenizer
from holistic_cam_plugin.passes.model_state import unwrap_model
from holistic_cam_plugin.passes.refusals import check_model, check_weights, describe_gap

__all__ = ["Explainable", "examine", "explainable"]

# Modules with parameters that may follow the last maps, however few came before.
_CLASSIFIER = 6
_WRAPPED = "model."  # first part of a layer's name in `Logits`


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
        maps: all layers whose maps follow the picture, in the order in which they finish.
        rejected: for layers that look like maps, by name, why they are none.
        deepest: the target layer found that finishes last, which the class mask is made of; None if there is none.

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
    maps: list[Layer]
    rejected: dict[str, str] = field(default_factory=dict)
    deepest: Layer | None = None

    def __post_init__(self) -> None:
        layers = [*self.target_layers, *([self.deepest.module] if self.deepest else [])]
        trust_layers(layers, self.reshape_transform, self.size)

    def __repr__(self) -> str:
        model = self.model.model if isinstance(self.model, Logits) else self.model
        names = textwrap.shorten(", ".join(self.layer_names), 120, placeholder=" ...")
        return (
            f"Explainable({type(model).__name__:.40}, layers=[{names}], size={self.size}, "
            f"multiple_of={self.multiple_of}, preprocessing={self.preprocessing.source!r}, "
            f"output_shape={self.output_shape})"
        )

    @property
    def maps_called_once(self) -> list[Layer]:
        """The layers that run once: of the others, only the first call could be explained."""
        return [layer for layer in self.maps if layer.calls == 1]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `HolisticCAM` that this model needs, and the layer of the class mask.

        `options | {"mask_layer": None}` leaves the mask to each target layer, as in the paper.
        """
        needed: dict[str, Any] = {"reshape_transform": self.reshape_transform} if self.reshape_transform else {}
        if self.multiple_of is None:  # tiles need one output per image
            needed |= {"tiles": True} if len(self.output_shape) == 1 else {"num_scales": 1}
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
        by_name = {layer.name: layer for layer in self.maps}
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
        if name in self.rejected:
            return f"the layer {name!r} returns no maps of the picture: it {self.rejected[name]}"
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

    The model runs on noise, with the pixels of 12 to 20 images. This shows the modules whose maps change where patches
    of the image do, those among them that explain the best score, and the sizes that the model accepts. It is left
    unchanged. Wrappers such as `AveragedModel` are looked through for preprocessing and class names.

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
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> found = explainable(load_demo_model())
        >>> found.layer_names, found.size, [*found.options]
        (['layer1', 'layer2', 'layer3', 'layer4'], (224, 224), ['mask_layer'])
        >>> cam = HolisticCAM(found.model, found.target_layers[-1:], sizes=[224], **found.options)
        >>> cam(torch.rand(1, 3, *found.size)).shape
        (1, 224, 224)
    """
    found = examine(model, processor, size=size, text=text, tokenizer=tokenizer)
    if not found.target_layers:
        raise ValueError(
            f"no layer of this {type(model).__name__} returns maps that explain its best score{_describe_cause(found)}"
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
    check_model(model)
    check_weights(model)
    if text is None and is_image_text(model):
        raise TypeError(f"{type(model).__name__} compares images with texts: pass explainable(model, {EXAMPLE})")
    with preserve_model(model):
        if text is not None:
            taken: nn.Module = bind_texts(model, text, processor, tokenizer)
        else:
            taken = PatchLogits(model) if takes_patches(model.forward) else model
        try:
            image, output = run_first_size(taken, size)
        except (TypeError, ValueError) as error:
            if text is None and (inner := find_image_text(model)):
                raise TypeError(
                    f"{type(model).__name__} does not run on images alone, and its module {inner!r} compares images "
                    f"with texts: pass that one, with {EXAMPLE}"
                ) from error
            raise
        own = (image.shape[2], image.shape[3])
        called = return_logits(taken, output, own)
        logits = output[called.name] if isinstance(called, Logits) and not isinstance(output, Tensor) else output
        maps, rejected, multiple_of = find_scaling_maps(called, image)
        targets = choose_target_layers(called, maps, logits.shape, image)
    if targets:
        _warn_of_rest(targets[-1])
    if called is not model:
        maps, targets = (list(map(_rename_unwrapped, found)) for found in (maps, targets))
        rejected = {name.removeprefix(_WRAPPED): reason for name, reason in rejected.items()}
    return Explainable(
        called,
        [layer.module for layer in targets],
        [layer.name for layer in targets],
        build_reshape_transform(targets, own) if targets else None,
        own,
        multiple_of,
        find_preprocessing(model, processor, own, image.shape[1]),
        taken.texts if isinstance(taken, TextLogits) else read_classes(model, logits.shape[1]),
        tuple(logits.shape[1:]),
        maps,
        rejected,
        max(targets, key=maps.index, default=None),
    )


def _describe_cause(found: Explainable) -> str:
    """Why no layer explains the score, and what to do."""
    if gap := describe_gap(found.model):
        return gap
    if found.maps and not found.maps_called_once:
        return ": all of them run several times in a pass. Wrap the model so that each runs once"
    return (
        " (are its weights loaded? does its forward use torch.no_grad() or detach()?): choose a layer yourself, and "
        "call HolisticCAM(model, [layer])"
    )


def _warn_of_rest(deepest: Layer) -> None:
    """Warn if most of the network comes after the deepest layer, more than the linear layers of a classifier."""
    if deepest.after > max(deepest.before, _CLASSIFIER):
        name = deepest.name.removeprefix(_WRAPPED)
        warnings.warn(
            f"{deepest.after} of the model's {deepest.before + deepest.after} modules with parameters come after its "
            f"last layer with maps of the picture, {name!r}: what they find is not in the map",
            stacklevel=4,
        )


def _rename_unwrapped(layer: Layer) -> Layer:
    """Name a layer of `Logits` as in the wrapped model."""
    return layer._replace(name=layer.name.removeprefix(_WRAPPED))
