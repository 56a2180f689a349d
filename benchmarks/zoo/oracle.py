r"""Whether a layer's maps lie over the picture, found without the package's own check.

A patch of a picture is replaced at five places, one after the other. $D_k$ is the change that replacement k makes in
the maps, summed over the channels and divided by its sum over the positions, and $\bar D$ the mean over the places:
$D_k - \bar D$ is large where the maps show that patch. If the maps lie over the picture, the centre of mass of
$\max(D_k - \bar D, 0)^2$ follows the patch; if positions are scrambled, or are no positions, it does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PLACES", "Change", "make_pictures", "measure_changes"]

Place = tuple[float, float]
Reshape = Callable[..., Any] | None

# Side and centres of the patches, in sides of the picture.
SIDE = 1 / 4
PLACES: list[Place] = [(1 / 6, 1 / 6), (1 / 6, 5 / 6), (1 / 2, 1 / 2), (5 / 6, 1 / 6), (5 / 6, 5 / 6)]
# Side of the pictures' blobs in pixels: pooling removes noise, and convolutions do not respond to plain pictures.
BLOB = 8


class Change(NamedTuple):
    """Where a layer's maps change.

    Attributes:
        distance: between the centres of the patch and of the change, in sides of the picture; the mean over the places.
            `inf` if a patch changes nothing.
        contrast: how much the change depends on the place: 0 if it is the same for all, 0.8 if no position changes for
            two of five places.
    """

    distance: float
    contrast: float


def measure_changes(
    model: nn.Module,
    layers: Sequence[nn.Module],
    reshape: Reshape,
    size: Sequence[int],
    places: Sequence[Place] = PLACES,
) -> list[Change]:
    """Measure, for each layer, where its maps change.

    Args:
        model: in evaluation mode; takes pictures `(1, 3, H, W)` or videos `(1, 3, T, H, W)`.
        reshape: converts what the layers return to `(B, C, h, w)` or `(B, C, t, h, w)`; with a parameter `image_size`,
            it gets the size. None: they return that.
        size: height and width in pixels, of videos after the number of frames.

    Raises:
        TypeError: a layer returns no maps.
    """
    original, other = make_pictures(size)
    before = _record_maps(model, layers, reshape, original)
    changes: list[list[Tensor]] = [[] for _ in layers]
    for place in places:
        after = _record_maps(model, layers, reshape, _replace_patch(original, other, place))
        for of_layer, old, new in zip(changes, before, after, strict=True):
            of_layer.append(_sum_change(old, new))
    return [_compare(torch.stack(of_layer), places) for of_layer in changes]


def make_pictures(size: Sequence[int]) -> list[Tensor]:
    """Make two pictures of smooth noise, with mean 0 and standard deviation about 1."""
    generator = torch.Generator().manual_seed(0)
    coarse = [*size[:-2], *(-(-side // BLOB) for side in size[-2:])]
    mode = "trilinear" if len(size) == 3 else "bicubic"
    noise = [torch.randn(1, 3, *coarse, generator=generator) for _ in range(2)]
    return [F.interpolate(picture, size=tuple(size), mode=mode, align_corners=False) for picture in noise]


def _replace_patch(original: Tensor, other: Tensor, place: Place) -> Tensor:
    """Copy a patch, in all frames, from the other picture."""
    picture = original.clone()
    rows, columns = (
        slice(round((centre - SIDE / 2) * side), round((centre + SIDE / 2) * side))
        for centre, side in zip(place, original.shape[-2:], strict=True)
    )
    picture[..., rows, columns] = other[..., rows, columns]
    return picture


def _record_maps(model: nn.Module, layers: Sequence[nn.Module], reshape: Reshape, picture: Tensor) -> list[Tensor]:
    """Run the model and return the maps of each layer's first call, in double precision."""
    found: dict[nn.Module, Tensor] = {}
    keywords = {}
    if reshape is not None and "image_size" in inspect.signature(reshape).parameters:
        keywords["image_size"] = tuple(picture.shape[2:])

    def record(layer: nn.Module, _: object, output: Any) -> None:
        if layer not in found:
            maps = output if reshape is None else reshape(output, **keywords)
            if not isinstance(maps, Tensor) or maps.ndim != picture.ndim:
                raise TypeError(f"the layer {type(layer).__name__} returns no maps (B, C, ...)")
            found[layer] = maps.detach().double().clone()

    handles = [layer.register_forward_hook(record) for layer in set(layers)]
    try:
        with torch.no_grad():
            model(picture)
    finally:
        for handle in handles:
            handle.remove()
    return [found[layer] for layer in layers]


def _sum_change(old: Tensor, new: Tensor) -> Tensor:
    """The change of one picture's maps, summed over channels and frames: `(h, w)`."""
    change = (new - old).abs()[0].sum(dim=0)
    return change.sum(dim=0) if change.ndim == 3 else change


def _compare(changes: Tensor, places: Sequence[Place]) -> Change:
    """Compare the changes `(places, h, w)` with the places."""
    shares = changes / changes.sum(dim=(1, 2), keepdim=True)
    excess = (shares - shares.mean(dim=0)).clamp(min=0)
    weights = excess.square() / excess.square().sum(dim=(1, 2), keepdim=True)
    rows, columns = ((torch.arange(side, dtype=torch.double) + 0.5) / side for side in changes.shape[1:])
    centres = torch.stack([(weights.sum(dim=2) * rows).sum(dim=1), (weights.sum(dim=1) * columns).sum(dim=1)], dim=1)
    distance = (centres - torch.tensor(places, dtype=torch.double)).norm(dim=1).mean()
    return Change(float(distance.nan_to_num(nan=float("inf"))), float(excess.sum(dim=(1, 2)).mean()))
