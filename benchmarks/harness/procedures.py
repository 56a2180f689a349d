"""Procedures timed by `latency`: forward passes alone (the floor), Holistic-CAM and competing methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytorch_grad_cam
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM
from holistic_cam_plugin.methods import pyramid_options
from holistic_cam_plugin.names import FAST

__all__ = [
    "BFLOAT16",
    "CLASS",
    "FLOORS",
    "FORWARD",
    "PASSES",
    "PROCEDURES",
    "TARGETS",
    "WITHOUT_LAYER",
    "Fused",
    "Setting",
    "autocast",
    "run_holistic",
    "synchronize",
]

TARGETS = 4


class Setting(NamedTuple):
    """Input of a procedure."""

    model: nn.Module
    layer: str
    images: Tensor  # (B, 3, H, W)
    sizes: list[int]  # the paper's shorter sides in pixels
    classes: list[int]  # classes to explain, the best-scoring one first
    options: Mapping[str, Any] = MappingProxyType({})  # `Explainable.options`, with the mask layer

    @property
    def module(self) -> nn.Module:
        """The target layer."""
        return self.model.get_submodule(self.layer)


class Fused(NamedTuple):
    """Result of Holistic-CAM.

    Attributes:
        maps: `(B, H, W)`.
        fusion_seconds: time from the last scale's pass to the maps: fusion and mask.
    """

    maps: NDArray[np.float32]
    fusion_seconds: float


def synchronize(device: torch.device) -> None:
    """Wait for the device, if it is a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _run_floor(memory_format: torch.memory_format, setting: Setting, scales: int | None = None) -> None:
    with torch.inference_mode():
        for size in setting.sizes[:scales]:
            scaled = F.interpolate(setting.images, size=(size, size), mode="bilinear", align_corners=False)
            setting.model(scaled.contiguous(memory_format=memory_format))


def _run_passes(setting: Setting) -> None:
    """Forward passes, and backward passes to the layer: the lower bound of methods that use the layer's gradients.

    Plain PyTorch with channels last, no graph below the layer, and the gradients are not used.
    """
    found: dict[str, Tensor] = {}

    def begin(_: nn.Module, __: object, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        found["activations"] = output.detach().requires_grad_()
        return found["activations"].clone()  # the next layer may be in-place

    with setting.module.register_forward_hook(begin):
        for size in setting.sizes:
            scaled = F.interpolate(setting.images, size=(size, size), mode="bilinear", align_corners=False)
            with torch.no_grad():
                output = setting.model(scaled.contiguous(memory_format=torch.channels_last))
            torch.autograd.grad(output[:, setting.classes[0]].sum(), found["activations"])


def run_holistic(
    setting: Setting,
    scales: int | None = None,
    targets: int = 1,
    cam_class: type[HolisticCAM] = HolisticCAM,
    sizes: str | None = None,
) -> Fused:
    """Explain the first `targets` classes.

    Args:
        scales: the first of the setting's sizes; None: all of them.
        sizes: a named pyramid instead.
    """
    moments: list[float] = []  # for each image the end of the passes and of the map

    def watch(sizes: Iterable[Any]) -> Iterator[Any]:
        if moments:
            moments.append(_read_clock(setting.images.device))
        yield from sizes
        moments.append(_read_clock(setting.images.device))

    options = pyramid_options(cam_class, setting.options)
    options |= {"sizes": sizes or setting.sizes[:scales], "progress": watch}
    cam = cam_class(setting.model, [setting.module], **options)
    chosen = [ClassifierOutputTarget(category) for category in setting.classes[:targets]]
    maps = cam(setting.images, [chosen] * len(setting.images))
    moments.append(_read_clock(setting.images.device))
    ends = zip(moments[::2], moments[1::2], strict=True)
    return Fused(maps, sum(made - passed for passed, made in ends))


def _read_clock(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()


def _run_cameras(setting: Setting) -> list[Tensor]:
    """CAMERAS as published by its authors, on the pyramid's sizes.

    Each scale has a backward pass through the whole model, including parameters; activations and gradients of each
    scale are resized to the image's size and summed.
    """
    return [_explain_cameras(setting, image[None]) for image in setting.images]


def _explain_cameras(setting: Setting, image: Tensor) -> Tensor:
    found: dict[str, Tensor] = {}

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        found["activations"] = output.detach()
        output.register_hook(lambda gradient: found.update(gradients=gradient))

    size = image.shape[-2:]
    activations = gradients = torch.zeros((), device=image.device)
    with ExitStack() as stack:
        stack.callback(setting.module.register_forward_hook(record).remove)
        for side in setting.sizes:
            scaled = F.interpolate(image, size=(side, side), mode="bicubic", align_corners=False)
            setting.model.zero_grad()
            setting.model(scaled)[0, setting.classes[0]].backward()
            resized = [F.interpolate(found[name], size=size, mode="bilinear") for name in ("activations", "gradients")]
            activations, gradients = activations + resized[0], gradients + resized[1]
        setting.model.zero_grad()
    return (activations * gradients).sum(dim=1).relu()


def _run_cam(cam_class: Callable[..., Any], setting: Setting) -> None:
    with cam_class(setting.model, [setting.module], setting.options.get("reshape_transform")) as cam:
        cam(setting.images, [ClassifierOutputTarget(setting.classes[0])] * len(setting.images))
    setting.model.zero_grad()


def _run_sess(setting: Setting) -> None:
    reshape = setting.options.get("reshape_transform")
    cam = pytorch_grad_cam.SESS(setting.model, [setting.module], reshape, base_method=pytorch_grad_cam.LayerCAM)
    cam(setting.images, [ClassifierOutputTarget(setting.classes[0])] * len(setting.images))
    cam.base_cam.activations_and_grads.release()
    setting.model.zero_grad()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Run the model in float32, tf32 (on a GPU) or bfloat16."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


PASSES = "floor with backward passes"
FORWARD = "one forward pass"
CLASS = "Class Holistic-CAM"
FLOORS = ("floor, NCHW", "floor, channels last")
WITHOUT_LAYER = (*FLOORS, FORWARD)  # do not depend on the target layer
PROCEDURES: dict[str, Callable[[Setting], Any]] = {
    FLOORS[0]: partial(_run_floor, torch.contiguous_format),
    FLOORS[1]: partial(_run_floor, torch.channels_last),
    PASSES: _run_passes,
    "Holistic-CAM": run_holistic,
    FORWARD: partial(_run_floor, torch.channels_last, scales=1),
    CLASS: partial(run_holistic, cam_class=ClassHolisticCAM, sizes=FAST),
    f"{CLASS} (3 of 7 scales)": partial(run_holistic, cam_class=ClassHolisticCAM, scales=3),
    f"{CLASS} (7 scales)": partial(run_holistic, cam_class=ClassHolisticCAM),
    f"Holistic-CAM, {TARGETS} targets": partial(run_holistic, targets=TARGETS),
    "Holistic-CAM, 4 scales": partial(run_holistic, scales=4),
    "Holistic-CAM, first image": lambda setting: run_holistic(setting._replace(images=setting.images[:1])),
    "CAMERAS procedure": _run_cameras,
    "Grad-CAM": partial(_run_cam, pytorch_grad_cam.GradCAM),
    "Layer-CAM": partial(_run_cam, pytorch_grad_cam.LayerCAM),
    "SESS": _run_sess,
    "Score-CAM": partial(_run_cam, pytorch_grad_cam.ScoreCAM),
}
# Procedures that run in bfloat16; pytorch-grad-cam's methods do not, as NumPy lacks it.
BFLOAT16 = (*FLOORS, FORWARD, "Holistic-CAM", CLASS, f"{CLASS} (7 scales)")
