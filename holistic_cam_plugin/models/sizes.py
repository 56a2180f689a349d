"""The sizes and channels of the images that a model takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.errors import describe_error, out_of_memory
from holistic_cam_plugin.models.image_text import find_lacking_inputs
from holistic_cam_plugin.models.probe import SIZE_ERRORS, make_noise

__all__ = ["run_first_size"]

# Sides in pixels to try where the model has no size of its own.
COMMON_SIDES = (224, 256, 299, 336, 384, 448, 512, 640, 128, 96, 64, 32, 28)


def run_first_size(model: nn.Module, size: tuple[int, ...] | None) -> tuple[Tensor, Any]:
    """Run the model on noise of the first size and number of channels that it accepts.

    Args:
        model: in evaluation mode, inside `preserve_model`.
        size: the size to try, `(H, W)` or `(D, H, W)`; None: the model's own sizes, then common ones.

    Returns:
        The noise `(1, C, H, W)` and the model's output.

    Raises:
        ValueError: there is none; the message has the first size's reason.
    """
    sizes: list[tuple[int, ...]] = list(dict.fromkeys(_list_sizes(model) if size is None else [size]))
    channels = list(dict.fromkeys(_list_channels(model)))
    reasons: list[Exception] = []
    for sides in sizes:
        for count in channels:
            try:
                image = make_noise(model, sides, count)
                return image, model(image)
            except SIZE_ERRORS as error:
                if out_of_memory(error):
                    raise
                reasons.append(error)
    reason = reasons[0]
    if lacking := find_lacking_inputs(model, reason):
        raise TypeError(
            f"the model does not run on images alone ({describe_error(reason)}), its forward takes "
            f"{', '.join(lacking)}, too: wrap it in a module that adds them (a model with encode_image and encode_text "
            "takes text=)"
        ) from reason
    if len(sizes[0]) == 2 and any(isinstance(module, nn.Conv3d) for module in model.modules()):
        raise ValueError(
            f"the model does not run on images (1, C, H, W) ({describe_error(reason)}), but has 3-D convolutions: for "
            "volumes and videos (B, C, D, H, W) name a layer yourself, and call HolisticCAM(model, [layer])"
        ) from reason
    others = f", nor at {len(sizes) - 1} other sizes" if len(sizes) > 1 else ""
    at = "x".join(map(str, sizes[0]))
    raise ValueError(
        f"the model does not run on images (1, {channels[0]}, H, W) of {at} px ({describe_error(reason)}){others}: "
        "pass size=(height, width), or a wrapper that takes images alone"
    ) from reason


def _list_sizes(model: nn.Module) -> Iterator[tuple[int, int]]:
    """List the sizes to try: the model's own, those of the modules inside it, then common ones."""
    own = [side for module in model.modules() for side in _list_own_sides(module)]
    trained = [_read_input_size(module) for module in model.modules()]
    for side in (*own, *trained, *COMMON_SIDES):
        if isinstance(side, int):
            yield side, side
        elif isinstance(side, (tuple, list)) and len(side) >= 2 and all(isinstance(one, int) for one in side[-2:]):
            yield side[-2], side[-1]


def _list_own_sides(module: nn.Module) -> Iterator[Any]:
    """What a module or its config says about the size of its images."""
    config = getattr(module, "config", None)
    for owner in (config, getattr(config, "vision_config", None), module):
        yield from (getattr(owner, name, None) for name in ("image_size", "img_size"))


def _read_input_size(module: nn.Module) -> Any:
    """timm's `(C, H, W)`."""
    described = getattr(module, "pretrained_cfg", None)
    return described.get("input_size") if isinstance(described, dict) else None


def _list_channels(model: nn.Module) -> Iterator[int]:
    """List the numbers of channels to try.

    The first convolution in the order of the modules need not be the first that runs; and where it has one channel, a
    model that broadcasts would take a gray image for any other.
    """
    for module in model.modules():
        size = _read_input_size(module)
        counts = (getattr(getattr(module, "config", None), "num_channels", None), size[0] if size else None)
        yield from (count for count in counts if isinstance(count, int))
    convolutions = [module.in_channels for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))]
    if convolutions[:1] != [1]:
        yield from convolutions[:1]
    yield from (3, 1)
    yield from convolutions
