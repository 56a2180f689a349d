"""What `HolisticCAM` needs of a model that somebody has: found by trying it out, not by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holistic_cam_plugin.classifiers.preprocessing import Preprocessing, found_preprocessing
from holistic_cam_plugin.classifiers.probe import REFUSALS, multiple_taken, probe_image, returned, untouched
from holistic_cam_plugin.classifiers.stages import Maps, explaining_stages, read_maps, reshape_transform
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.passes.modes import unwrapped
from holistic_cam_plugin.passes.refusals import out_of_memory

__all__ = ["Explainable", "Logits", "examined", "explainable", "stages_of"]

# Sides in pixels to try where a model does not tell its own.
COMMON_SIDES = (224, 256, 299, 384, 448, 512, 640, 128, 96, 64, 32, 28)
# Of transformers' models of fixed size: their positions are interpolated.
_ANY_SIZE = "interpolate_pos_encoding"


class Explainable(NamedTuple):
    """A model and what belongs to it.

    Attributes:
        model: the module to call: the model itself, or a thin one around it that returns the logits alone.
        target_layers: one for each of the last stages, shallow to deep.
        layer_names: of these in the model that was given.
        reshape_transform: one for all of these layers; None: they return `(B, C, h, w)`.
        size: height and width in pixels that the model ran at.
        multiple_of: what its sides may grow by: 1, any size; more, multiples of it; None: the model takes one size.
        preprocessing: from a picture to its input.
        classes: class names by index, if the model tells them.
        outputs: shape of what it returns for one image: `(classes,)`, of dense outputs `(classes, h, w)`.
        maps: every module that returns maps, in the order in which they finish.
    """

    model: nn.Module
    target_layers: list[nn.Module]
    layer_names: list[str]
    reshape_transform: Callable[..., Tensor] | None
    size: tuple[int, int]
    multiple_of: int | None
    preprocessing: Preprocessing
    classes: list[str] | None
    outputs: tuple[int, ...]
    maps: list[Maps]

    @property
    def single(self) -> list[Maps]:
        """Those of the modules that run once: of others only the first call could be explained."""
        return [one for one in self.maps if one.returned.calls == 1]

    def at(self, names: Sequence[str]) -> Explainable:
        """The same with other target layers, named as in the model that was given.

        Raises:
            UsageError: no such layer (near matches are named), one that returns no maps, or layers that no single
                reshape transform serves.
        """
        by_name = {one.name: one for one in self.maps}
        for name in names:
            if name not in by_name:
                raise UsageError(self._without_maps(name))
        chosen = [by_name[name] for name in names]
        try:
            reshape = reshape_transform(chosen, self.size)
        except ValueError as error:
            raise UsageError(f"{', '.join(names)}: {error}") from error
        layers = [one.returned.module for one in chosen]
        return self._replace(target_layers=layers, layer_names=list(names), reshape_transform=reshape)

    def _without_maps(self, name: str) -> str:
        given = self.model.model if isinstance(self.model, Logits) else self.model
        names = [known for known, _ in given.named_modules() if known]
        if name not in names:
            return f"the model has no layer {name!r}{near_matches(name, names)} (--list-layers shows them all)"
        with untouched(self.model):
            shapes = {one.module: one.shape for one in returned(self.model, probe_image(self.model, self.size))}
        shape = shapes.get(given.get_submodule(name))
        found = f"gives {shape}" if shape else "gives no tensor"
        return f"the layer {name!r} {found}, not maps (B, C, h, w) or tokens (--list-layers shows those that do)"

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of `HolisticCAM` that this model needs."""
        needed: dict[str, Any] = {"reshape_transform": self.reshape_transform} if self.reshape_transform else {}
        if self.multiple_of is None:
            needed["tiles"] = True
        elif self.multiple_of > 1:
            needed["multiple_of"] = self.multiple_of
        return needed


class Logits(nn.Module):
    """A model that returns a `ModelOutput` or dict, reduced to its `logits`.

    Args:
        model: called on the images alone.
        keywords: passed on with every call.
    """

    def __init__(self, model: nn.Module, keywords: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.keywords = dict(keywords)

    def get_submodule(self, target: str) -> nn.Module:
        """A module by its name in the model that is wrapped."""
        return self.model.get_submodule(target)

    def forward(self, images: Tensor) -> Tensor:
        """The logits, a row an image."""
        outputs = self.model(images, **self.keywords)
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        return logits


def explainable(model: nn.Module, processor: Any = None, *, size: tuple[int, int] | None = None) -> Explainable:
    """What `HolisticCAM` needs of a classifier: one of torchvision, timm or transformers, or any module that is alike.

        found = explainable(model)
        cam = HolisticCAM(found.model, found.target_layers[-1:], **found.options)
        maps = cam(found.preprocessing(picture))

    The model is tried out on noise: a forward pass that shows which modules return maps, one with gradients that shows
    which of them explain the best score, and a few at larger sizes. It is left as it was.

    Args:
        model: on any device, in any floating dtype. It returns a tensor, or a dict or `ModelOutput` with `logits`.
        processor: an image processor of transformers or the transforms of torchvision's weights. None: what the model
            knows (timm's data config; the processor in the folder or the cache that a transformers model came from).
            torchvision's modules don't know theirs: the usual normalisation of ImageNet is assumed, and
            `preprocessing.source` says so.
        size: height and width of the images in pixels. None: what the model tells, or a common one that it takes.

    Raises:
        TypeError: no module, an unknown processor, or an output without logits, such as a detector's; the message says
            what to write.
        ValueError: the model runs at no size that was tried, or none of its layers explains its score.
    """
    found = examined(model, processor, size=size)
    if not found.target_layers:
        raise ValueError(
            f"no layer of this {type(model).__name__} returns maps that explain its best score (are its weights "
            "loaded?). Name one yourself:\n    layer = model.get_submodule('...')\n"
            "    cam = HolisticCAM(model, [layer], reshape_transform=...)  # to (B, C, h, w), if it has tokens"
        )
    return found


def examined(model: nn.Module, processor: Any = None, *, size: tuple[int, int] | None = None) -> Explainable:
    """`explainable`, but a model of which no layer explains its score comes without target layers."""
    model = unwrapped(model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")
    with untouched(model):
        image, output = _first_run(model, list(_sizes(model)) if size is None else [size])
        called = _called(model, output)
        own = (image.shape[2], image.shape[3])
        logits = output if isinstance(output, Tensor) else output["logits"]
        maps, stages = stages_of(called, image, logits.shape[1])
        step = multiple_taken(called, own)
    if called is not model:  # names are those of the model that was given
        maps, stages = ([one.renamed(one.name.removeprefix("model.")) for one in some] for some in (maps, stages))
    return Explainable(
        called,
        [one.returned.module for one in stages],
        [one.name for one in stages],
        reshape_transform(stages, own) if stages else None,
        own,
        step,
        found_preprocessing(model, processor, own, image.shape[1]),
        _classes(model),
        tuple(logits.shape[1:]),
        maps,
    )


def stages_of(model: nn.Module, image: Tensor, classes: int) -> tuple[list[Maps], list[Maps]]:
    """The modules that return maps of an image `(1, C, H, W)`, and of them the one of each of the last stages.

    Args:
        model: returns logits of so many classes; in evaluation mode.
    """
    # Tables of positions have no batch of two.
    maps = read_maps(returned(model, image.expand(2, -1, -1, -1)), 2, (image.shape[2], image.shape[3]))
    once = [one for one in maps if one.returned.calls == 1]  # of others only the first call could be explained
    return maps, explaining_stages(model, once, classes, image, _best_score)


def _sizes(model: nn.Module) -> Iterator[tuple[int, int]]:
    """Sizes to try, those that the model tells first."""
    told = [getattr(getattr(model, "config", None), "image_size", None), getattr(model, "image_size", None)]
    told += [getattr(module, "img_size", None) for module in model.modules()]
    told.append((getattr(model, "pretrained_cfg", None) or {}).get("input_size"))
    for sides in (*told, *COMMON_SIDES):
        if isinstance(sides, int):
            yield sides, sides
        elif isinstance(sides, (tuple, list)) and len(sides) >= 2:
            yield sides[-2], sides[-1]


def _first_run(model: nn.Module, sizes: list[tuple[int, int]]) -> tuple[Tensor, Any]:
    """The first image that the model takes, and its output."""
    reasons = {}
    for size in dict.fromkeys(sizes):
        try:
            image = probe_image(model, size)
            with torch.inference_mode():
                return image, model(image)
        except REFUSALS as error:
            if out_of_memory(error):
                raise
            reasons[size] = error
    size, reason = next(iter(reasons.items()))
    raise ValueError(
        f"the model takes no image of {size[0]}x{size[1]} px ({reason}), nor of {len(reasons) - 1} other sizes: pass "
        "explainable(model, size=(height, width)). It is called with one batch (1, channels, height, width)"
    ) from reason


def _called(model: nn.Module, output: Any) -> nn.Module:
    """The model, or the module around it that returns the logits."""
    if isinstance(output, list) or (isinstance(output, Mapping) and "pred_boxes" in output):
        raise TypeError(
            "explainable() takes classifiers, and this model detects. Name a layer of its backbone:\n"
            "    detector = DETRDetections(model)  # or YOLODetections(model); torchvision's need none\n"
            "    cam = HolisticCAM(detector, [layer])  # and targets=[BoxScoreTarget(boxes, labels), ...]"
        )
    keywords = {_ANY_SIZE: True} if _ANY_SIZE in inspect.signature(model.forward).parameters else {}
    if isinstance(output, Tensor):
        return Logits(model, keywords) if keywords else model
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return Logits(model, keywords)
    keys = f" with the keys {list(output)}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"the model returns a {type(output).__name__}{keys}, neither a tensor nor something with logits. Wrap it:\n"
        "    class Wrapped(torch.nn.Module):\n"
        "        def __init__(self, model): super().__init__(); self.model = model\n"
        "        def forward(self, x): return self.model(x)[...]  # the tensor to explain"
    )


def _best_score(logits: Tensor) -> Tensor:
    """The best class's logit; of dense outputs, the sum."""
    return logits.max() if logits.ndim == 2 else logits.sum()


def _classes(model: nn.Module) -> list[str] | None:
    """Class names by index that the model tells: in the config of transformers or timm."""
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
