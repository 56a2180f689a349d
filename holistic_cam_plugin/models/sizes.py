"""The sizes and channels of the images that a model takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from holistic_cam_plugin.errors import describe_error, out_of_memory
from holistic_cam_plugin.models.layers import Layer
from holistic_cam_plugin.models.probe import SIZE_ERRORS, make_noise, record_outputs
from holistic_cam_plugin.passes.refusals import check_lacking_inputs

__all__ = ["find_size_multiple", "record_larger", "run_first_size"]

# Sides in pixels to try where the model has no size of its own.
COMMON_SIDES = (224, 256, 299, 336, 384, 448, 512, 640, 128, 96, 64, 32, 28)
# One larger size can be accepted by chance, where several paddings compensate for one another: two steps are tried, and
# odd numbers of steps to about these many times the size.
_STEPS, _FAR = (1, 2), (1.25, 1.4)
# Small steps can be lost where pooling or patches round down, so much larger images are tried first. Twice the size is
# a multiple of whatever the size is a multiple of; the smaller one is for models that take too much memory there.
_LARGER = (2, 1.5)


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
    name = getattr(model, "main_input_name", "pixel_values")  # of transformers
    if name != "pixel_values":
        raise TypeError(
            f"{type(model).__name__} takes {name}, not images: wrap it in a module whose forward converts images to "
            f"{name} and returns the logits"
        ) from reason
    check_lacking_inputs(model, reason)
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


def record_larger(model: nn.Module, image: Tensor) -> tuple[tuple[int, int], list[Layer]] | None:
    """Record what all modules return at a much larger size, if the model accepts it.

    Returns:
        The size, which is a multiple of what the image's sides must be multiples of, and the modules.
    """
    height, width = image.shape[2:]
    for factor in _LARGER:
        size = round(height * factor), round(width * factor)
        try:
            outputs, _ = record_outputs(model, make_noise(model, size, image.shape[1]))
            return size, outputs
        except (*SIZE_ERRORS, MemoryError) as error:
            if not out_of_memory(error):
                return None
    return None


def find_size_multiple(model: nn.Module, image: Tensor) -> int | None:
    """Find what the sides may grow by in pixels: 1 for any size, n for multiples of n, None if no other size runs.

    The model accepts a much larger size: see `record_larger`.
    """
    height, width = image.shape[2:]
    for step in range(1, min(height, width) // 2 + 1):
        far = [round((factor - 1) * min(height, width) / step) | 1 for factor in _FAR]
        sizes = [(height + times * step, width + times * step) for times in dict.fromkeys((*_STEPS, *far))]
        if height % step == width % step == 0 and all(_accepts(model, image, size) for size in sizes):
            return step
    return None


def _accepts(model: nn.Module, image: Tensor, size: tuple[int, int]) -> bool:
    try:
        model(make_noise(model, size, image.shape[1]))
    except SIZE_ERRORS as error:
        if out_of_memory(error):
            raise
        return False
    return True
