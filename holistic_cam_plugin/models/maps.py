"""The layers whose maps follow the picture, at its own size and at another one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from holistic_cam_plugin.errors import out_of_memory
from holistic_cam_plugin.models.geometry import PLACES, patch_image
from holistic_cam_plugin.models.layers import Layer, build_reshape_transform, read_layouts
from holistic_cam_plugin.models.probe import (
    SIZE_ERRORS,
    find_larger_size,
    find_size_multiple,
    make_noise,
    place_layers,
    record_outputs,
)

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
    return read_layouts(*record_outputs(model, patch_image(image)), (image.shape[2], image.shape[3]))


def find_scaling_maps(model: nn.Module, image: Tensor) -> tuple[list[Layer], dict[str, str], int | None]:
    """Find the layers whose maps follow the picture at other sizes, too, if the model accepts any.

    Returns:
        As `find_maps`; and what the image's sides may grow by in pixels, None if no other size runs.
    """
    maps, rejected = find_maps(model, image)
    larger = find_larger_size(model, image)
    if larger is None:
        return maps, rejected, None
    growing, fixed = _leave_out_fixed(model, maps, image, larger)
    step = find_size_multiple(model, image) if growing else None
    if step is None:
        return maps, rejected, None
    following, shifted = _leave_out_shifted(model, growing, image, step)
    return following, rejected | fixed | shifted, step


def _leave_out_fixed(model: nn.Module, layers: Sequence[Layer], image: Tensor, larger: tuple[int, int]) -> Found:
    """Leave out the layers whose grid does not grow with the image, such as those after an adaptive pooling.

    Args:
        larger: an accepted size that is at least 1.5 times the image's.

    Returns:
        As `find_maps`. No layers if no grid grows: then the model itself resizes its images.
    """
    outputs, _ = record_outputs(model, make_noise(model, larger, image.shape[1]))
    shapes = {layer.name: layer.shape for layer in outputs}
    own = (image.shape[2], image.shape[3])
    kept = [x for x in layers if x.name in shapes and _grows(x, shapes[x.name])]
    if all(layer.grid == own for layer in kept):  # those before the model resizes
        return [], {}
    left = {layer.name for layer in layers} - {layer.name for layer in kept}
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
        except SIZE_ERRORS as error:
            if out_of_memory(error):
                raise
    else:
        return list(layers), {}
    at = "x".join(map(str, size))
    shifted: dict[str, str] = {}
    for layer in layers:
        placement = placed.get(layer.module, "")
        reason = placement if isinstance(placement, str) else "" if placement.is_unclear else placement.reason
        if reason:
            shifted[layer.name] = f"for images of {at} px, {reason}"
    return [layer for layer in layers if layer.name not in shifted], shifted
