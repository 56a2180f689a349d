"""The layers whose maps follow the picture, at its own size and at another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from holistic_cam_plugin.errors import describe_error, out_of_memory
from holistic_cam_plugin.models.geometry import PLACES, patch_image
from holistic_cam_plugin.models.layers import Grid, Layer, build_reshape_transform
from holistic_cam_plugin.models.layouts import read_layouts
from holistic_cam_plugin.models.probe import SIZE_ERRORS, make_noise, place_layers, record_outputs
from holistic_cam_plugin.models.sizes import find_size_multiple, record_larger

__all__ = ["find_maps", "find_scaling_maps"]

# A larger image must have this many times the positions. Twice the pixels and more have at least 1.7 times.
_GROWTH = 1.5
# At the other size, the image is this much wider; fewer places suffice.
_WIDER = 1.25
_PLACES = PLACES[:2]

Found = tuple[list[Layer], dict[str, str]]


def find_maps(model: nn.Module, image: Tensor) -> Found:
    """Find the layers whose maps follow the picture.

    Args:
        model: in evaluation mode, inside `preserve_model`.
        image: `(1, C, H, W)`.

    Returns:
        These layers in the order in which they finish, and for the others that look like maps, by name, why they are
        none.
    """
    images = patch_image(image)
    try:
        outputs, changes = record_outputs(model, images)
    except (*SIZE_ERRORS, MemoryError) as error:
        if not out_of_memory(error):
            raise ValueError(
                f"the model runs on one image, but not on {len(images)} at a time ({describe_error(error)}), which "
                "finding its layers needs: name a layer yourself, and call HolisticCAM(model, [layer])"
            ) from error
        pairs = [record_outputs(model, torch.stack([images[0], patched])) for patched in images[1:]]
        outputs, changes = pairs[0][0], _join_changes([changes for _, changes in pairs])
    return read_layouts(outputs, changes, (image.shape[2], image.shape[3]))


def _join_changes(parts: Sequence[dict[str, dict[int, Tensor]]]) -> dict[str, dict[int, Tensor]]:
    """Join the changes of several passes with one patch each."""
    return {
        name: {axis: torch.cat([part[name][axis] for part in parts]) for axis in changes}
        for name, changes in parts[0].items()
    }


def find_scaling_maps(model: nn.Module, image: Tensor) -> tuple[list[Layer], dict[str, str], int | None]:
    """Find the layers whose maps follow the picture at other sizes, too, if the model accepts any.

    Returns:
        As `find_maps`; and what the image's sides may grow by in pixels, None if no other size runs.
    """
    maps, rejected = find_maps(model, image)
    recorded = record_larger(model, image)
    if recorded is None:
        return maps, rejected, None
    growing, fixed = _leave_out_fixed(maps, (image.shape[2], image.shape[3]), *recorded)
    step = find_size_multiple(model, image) if growing else None
    if step is None:
        return maps, rejected, None
    following, shifted = _leave_out_shifted(model, growing, image, step)
    return following, rejected | fixed | shifted, step


def _leave_out_fixed(layers: Sequence[Layer], own: Grid, larger: Grid, outputs: Sequence[Layer]) -> Found:
    """Leave out the layers whose grid does not grow with the image, such as those after an adaptive pooling.

    Args:
        own, larger: the size of the image, and one that is at least 1.5 times as large.
        outputs: what the modules returned for the latter.

    Returns:
        As `find_maps`. No layers if no grid grows: then the model itself resizes its images.
    """
    shapes = {layer.name: layer.shape for layer in outputs}
    kept = [x for x in layers if x.name in shapes and _grows(x, shapes[x.name])]
    if len(kept) < len(layers) and all(layer.grid == own for layer in kept):  # those before the model resizes
        return [], {}
    left = [layer.name for layer in layers if layer not in kept]
    at = "x".join(map(str, larger))
    return kept, dict.fromkeys(left, f"has the same grid for images of {at} px, as after an adaptive pooling")


def _grows(layer: Layer, shape: tuple[int, ...]) -> bool:
    if len(shape) != len(layer.shape):
        return False
    return layer.count_positions(shape) >= _GROWTH * layer.count_positions(layer.shape)


def _leave_out_shifted(model: nn.Module, layers: Sequence[Layer], image: Tensor, step: int) -> Found:
    """Leave out the layers whose maps do not follow a picture that is wider, or larger if the model refuses that.

    Args:
        step: what the sides may grow by in pixels.

    Returns:
        As `find_maps`.
    """
    height, width = image.shape[2:]
    wider, higher = (side + max(1, round(side * (_WIDER - 1) / step)) * step for side in (width, height))
    own = (height, width)
    transforms = {layer.module: build_reshape_transform([layer], own) for layer in layers if layer.is_tensor}
    for size in ((height, wider), (higher, wider)):
        try:
            placed = place_layers(model, transforms, make_noise(model, size, image.shape[1]), _PLACES)
            break
        except (*SIZE_ERRORS, MemoryError):  # a model of square images, or too little memory for several of them
            continue
    else:
        return list(layers), {}
    at = "x".join(map(str, size))
    shifted: dict[str, str] = {}
    for layer in layers:
        placement = placed.get(layer.module, "")
        reason = placement if isinstance(placement, str) else placement.reason if placement.is_elsewhere else ""
        if reason:
            shifted[layer.name] = f"for images of {at} px, {reason}"
    return [layer for layer in layers if layer.name not in shifted], shifted
