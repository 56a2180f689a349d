"""The check that maps lie over the picture, for layers and reshape transforms that the user chooses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from holistic_cam_plugin.models.geometry import PLACES, Placement
from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.models.probe import SIZE_ERRORS, make_noise, place_layers
from holistic_cam_plugin.models.sizes import run_first_size
from holistic_cam_plugin.passes.capture import check_target_layers
from holistic_cam_plugin.passes.model_state import unwrap_model
from holistic_cam_plugin.passes.records import Reshaping

__all__ = ["Geometry", "check_geometry", "check_layers", "trust_layers"]

Transform = Callable[..., Any]

_FEW_PLACES = PLACES[:2]
# Other sizes to try, as parts of height and width.
_OTHERS = ((1.0, 1.25), (1.5, 1.5), (2.0, 2.0))

# For each layer and reshape transform, the images that they were checked for: a size, proportions, or `_ANY`. A model
# may pad or crop images of other proportions.
_checked: WeakKeyDictionary[nn.Module, WeakKeyDictionary[Any, set[tuple[Any, ...]]]] = WeakKeyDictionary()
_ANY = ("any",)
_PROPORTIONS = 3  # steps by which they are told apart, for each factor of two


class Geometry(NamedTuple):
    """Where the maps of a layer change if patches of the picture change.

    Attributes:
        placements: for each size `(H, W)` or `(D, H, W)` that the model accepts of those tried.
        reasons: for each of these sizes, what is wrong with the maps; empty if nothing is.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> model = load_demo_model()
        >>> geometry = check_geometry(model, model.layer3, size=(64, 64))
        >>> geometry.follows, list(geometry.placements)
        (True, [(64, 64), (64, 80)])
    """

    placements: dict[tuple[int, ...], Placement | None]
    reasons: dict[tuple[int, ...], str]

    @property
    def follows(self) -> bool:
        """Whether the maps change where the picture does, at all sizes."""
        return not any(self.reasons.values())


def check_geometry(
    model: nn.Module,
    layer: nn.Module,
    reshape_transform: Transform | None = None,
    *,
    size: tuple[int, ...] | None = None,
) -> Geometry:
    """Check that a layer's maps lie over the picture: change patches of the picture, and see where the maps change.

    This is how `explainable` tells maps from tokens in another order, attention matrices and latents. The model runs on
    noise, at three places, at its own size and at another one if it accepts it, and is left unchanged.

    Args:
        model: takes images `(B, C, H, W)` or volumes `(B, C, D, H, W)`.
        layer: a module of the model.
        reshape_transform: as in `HolisticCAM`.
        size: height and width of the images in pixels, or depth, height and width of volumes. None: the model's own
            size or a common one.

    Raises:
        TypeError, ValueError: `layer` is not a module of the model, or the model does not run at this size.

    Example:
        >>> from holistic_cam_plugin.demo import load_demo_model
        >>> model = load_demo_model()
        >>> check_geometry(model, model.layer3, size=(64, 64)).follows
        True
        >>> check_geometry(model, model.layer3, lambda maps: maps.mT, size=(64, 64)).reasons[64, 64]
        'changes 0.50 of the side away from where the picture changes'
    """
    model = unwrap_model(model)
    check_target_layers(model, [layer])
    placements: dict[tuple[int, ...], Placement | None] = {}
    reasons: dict[tuple[int, ...], str] = {}
    with preserve_model(model):
        image, _ = run_first_size(model, size)
        own = tuple(image.shape[2:])
        for place, sides in enumerate((own, *(_scale(own, *factors) for factors in _OTHERS))):
            try:
                found = place_layers(model, {layer: reshape_transform}, make_noise(model, sides, image.shape[1]))
            except SIZE_ERRORS:
                if place == 0:
                    raise
                continue
            placement = found.get(layer, "does not run")
            placements[sides] = None if isinstance(placement, str) else placement
            reasons[sides] = placement if isinstance(placement, str) else placement.reason
            if place:  # one other size
                break
    return Geometry(placements, reasons)


def _scale(size: tuple[int, ...], *factors: float) -> tuple[int, ...]:
    return (*size[:-2], *(round(side * factor) for side, factor in zip(size[-2:], factors, strict=True)))


def trust_layers(
    layers: Sequence[nn.Module], reshape_transform: Transform | None, size: tuple[int, ...] | None = None
) -> None:
    """Remember that these layers were checked with this reshape transform.

    Args:
        size: of the images that they were checked with; they are trusted for others of these proportions. None: for all
            images.
    """
    for layer in layers:
        _remember(layer, reshape_transform, _ANY if size is None else _describe_proportions(size))


def _remember(layer: nn.Module, reshape_transform: Transform | None, images: tuple[Any, ...]) -> None:
    with suppress(TypeError):  # some callables cannot be remembered, and are checked at each call
        _checked.setdefault(layer, WeakKeyDictionary()).setdefault(reshape_transform or _keep, set()).add(images)


def _keep(maps: Tensor) -> Tensor:
    """The reshape transform of layers that need none."""
    return maps


def _describe_proportions(size: tuple[int, ...]) -> tuple[Any, ...]:
    return ("proportions", *(round(_PROPORTIONS * math.log2(side / size[-1])) for side in size[:-1]))


def check_layers(
    model: nn.Module, layers: Sequence[nn.Module], reshape_transform: Transform | None, images: Tensor, stacklevel: int
) -> None:
    """Check layers that were not checked for such images before, on the first one, in one pass of three images.

    Args:
        images: `(B, C, H, W)` or `(B, C, D, H, W)`, on the model's device.
        stacklevel: of the warning, from the caller on: 1 is the caller's caller.

    Raises:
        ValueError: a layer returns its channels last.
    """
    size = tuple(images.shape[2:])
    new = [layer for layer in layers if not _is_trusted(layer, reshape_transform, size)]
    if not new:
        return
    first = images[:1]
    with preserve_model(model):
        try:
            placed = place_layers(model, dict.fromkeys(new, reshape_transform), first, _FEW_PLACES)
            moved = partial(_move_channels, Reshaping(reshape_transform), size)
            shifted = dict.fromkeys(_list_shifted(placed), moved)
            last = place_layers(model, shifted, first, _FEW_PLACES) if shifted else {}
        except (*SIZE_ERRORS, MemoryError):
            # What is wrong with the model or the layer shows in the passes that follow; or it takes single images.
            trust_layers(new, reshape_transform, size)
            return
    names = {module: name for name, module in model.named_modules()}
    for layer in _list_shifted(placed):
        named = f"the layer {names.get(layer, '')!r} ({type(layer).__name__})"
        placement, other = placed[layer], last.get(layer)
        if isinstance(other, Placement) and other.follows:
            raise ValueError(f"{named} returns {_advise_channels_last(images.ndim)}")
        assert isinstance(placement, Placement)
        warnings.warn(
            f"{named} {placement.reason}: its map may lie elsewhere than what it shows. Choose another layer, or a "
            "reshape_transform for its order of positions (check_geometry tells whether one is right)",
            stacklevel=stacklevel + 2,
        )
    for layer, found in placed.items():
        clear = not (isinstance(found, Placement) and found.is_unclear)
        _remember(layer, reshape_transform, _describe_proportions(size) if clear else ("size", *size))


def _is_trusted(layer: nn.Module, reshape_transform: Transform | None, size: tuple[int, ...]) -> bool:
    images: set[tuple[Any, ...]] = set()
    with suppress(TypeError):  # not hashable
        images = _checked.get(layer, WeakKeyDictionary()).get(reshape_transform or _keep, images)
    return not images.isdisjoint((_ANY, _describe_proportions(size), ("size", *size)))


def _list_shifted(placed: dict[nn.Module, Placement | str]) -> list[nn.Module]:
    return [layer for layer, placement in placed.items() if isinstance(placement, Placement) and placement.is_elsewhere]


def _move_channels(reshaping: Reshaping, size: tuple[int, ...], output: Any) -> Tensor:
    maps: Tensor = torch.as_tensor(reshaping.maps(output, size)).movedim(-1, 1)
    return maps


def _advise_channels_last(ndim: int) -> str:
    if ndim == 5:
        return "volumes with channels last, (B, d, h, w, C): pass reshape_transform=lambda maps: maps.movedim(-1, 1)"
    return "maps with channels last, (B, h, w, C): pass reshape_transform=holistic_cam_plugin.swin_reshape_transform"
