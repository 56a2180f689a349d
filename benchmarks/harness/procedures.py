"""What `latency` times: the floor, Holistic-CAM and the methods that it is compared with, on the same sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytorch_grad_cam as library
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import HolisticCAM

__all__ = [
    "BFLOAT16",
    "FLOORS",
    "PASSES",
    "PROCEDURES",
    "TARGETS",
    "Fused",
    "Setting",
    "autocast",
    "holistic",
    "synchronize",
]

TARGETS = 4


class Setting(NamedTuple):
    """What one procedure runs on."""

    model: nn.Module
    layer: str
    images: Tensor  # (B, 3, H, W)
    sizes: list[int]  # the pyramid's shorter sides in pixels
    classes: list[int]  # to explain, the best-scoring one first

    @property
    def module(self) -> nn.Module:
        """The target layer."""
        return self.model.get_submodule(self.layer)


class Fused(NamedTuple):
    """What Holistic-CAM tells of itself.

    Attributes:
        maps: `(B, H, W)`.
        fusion_seconds: from the last scale's pass through the model to the maps: fusion and wrap.
    """

    maps: NDArray[np.float32]
    fusion_seconds: float


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _floor(memory_format: torch.memory_format, setting: Setting) -> None:
    with torch.inference_mode():
        for size in setting.sizes:
            scaled = F.interpolate(setting.images, size=(size, size), mode="bilinear", align_corners=False)
            setting.model(scaled.contiguous(memory_format=memory_format))


def _passes(setting: Setting) -> None:
    """What no method with gradients of this layer can do without: the floor, and the backward passes to the layer.

    Bare PyTorch, channels last: no graph below the layer, and nothing is done with the gradients.
    """
    found: dict[str, Tensor] = {}

    def begin(_: nn.Module, __: object, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        found["activations"] = output.detach().requires_grad_()
        return found["activations"].clone()  # the next layer may work in place

    with setting.module.register_forward_hook(begin):
        for size in setting.sizes:
            scaled = F.interpolate(setting.images, size=(size, size), mode="bilinear", align_corners=False)
            with torch.no_grad():
                output = setting.model(scaled.contiguous(memory_format=torch.channels_last))
            torch.autograd.grad(output[:, setting.classes[0]].sum(), found["activations"])


def holistic(setting: Setting, scales: int | None = None, targets: int = 1) -> Fused:
    """Holistic-CAM of the first classes over the first scales; None: all."""
    moments: list[float] = []  # of the passes' end, then of the maps', image by image

    def watched(sizes: Iterable[Any]) -> Iterator[Any]:
        if moments:
            moments.append(_now(setting.images.device))
        yield from sizes
        moments.append(_now(setting.images.device))

    cam = HolisticCAM(setting.model, [setting.module], sizes=setting.sizes[:scales], progress=watched)
    chosen = [ClassifierOutputTarget(category) for category in setting.classes[:targets]]
    maps = cam(setting.images, [chosen] * len(setting.images))
    moments.append(_now(setting.images.device))
    ends = zip(moments[::2], moments[1::2], strict=True)
    return Fused(maps, sum(made - passed for passed, made in ends))


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()


def _cameras(setting: Setting) -> list[Tensor]:
    """CAMERAS as its authors publish it, on the pyramid's sizes.

    Every scale is a backward pass through the whole model, parameters included; activations and gradients of each
    scale are resized to the image's size as they are, channel by channel, and summed.
    """
    return [_cameras_map(setting, image[None]) for image in setting.images]


def _cameras_map(setting: Setting, image: Tensor) -> Tensor:
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


def _library(cam_class: Callable[..., Any], setting: Setting) -> None:
    with cam_class(setting.model, [setting.module]) as cam:
        cam(setting.images, [ClassifierOutputTarget(setting.classes[0])] * len(setting.images))
    setting.model.zero_grad()


def _sess(setting: Setting) -> None:
    cam = library.SESS(setting.model, [setting.module], base_method=library.LayerCAM)
    cam(setting.images, [ClassifierOutputTarget(setting.classes[0])] * len(setting.images))
    cam.base_cam.activations_and_grads.release()
    setting.model.zero_grad()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The precision of the model's passes: float32, tf32 (a GPU's) or bfloat16."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


PASSES = "floor with backward passes"
FLOORS = ("floor, NCHW", "floor, channels last")
PROCEDURES: dict[str, Callable[[Setting], Any]] = {
    FLOORS[0]: partial(_floor, torch.contiguous_format),
    FLOORS[1]: partial(_floor, torch.channels_last),
    PASSES: _passes,
    "Holistic-CAM": holistic,
    f"Holistic-CAM, {TARGETS} targets": partial(holistic, targets=TARGETS),
    "Holistic-CAM, 4 scales": partial(holistic, scales=4),
    "Holistic-CAM, first image": lambda setting: holistic(setting._replace(images=setting.images[:1])),
    "CAMERAS procedure": _cameras,
    "Grad-CAM": partial(_library, library.GradCAM),
    "Layer-CAM": partial(_library, library.LayerCAM),
    "SESS": _sess,
}
# What runs in bfloat16: the library's methods do not, since NumPy lacks it.
BFLOAT16 = (*FLOORS, "Holistic-CAM")
