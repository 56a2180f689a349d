"""Registry of methods by the names of pytorch-grad-cam's command line, and the maps of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytorch_grad_cam
from numpy.typing import NDArray
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from holistic_cam_plugin.baselines.cam import CAM
from holistic_cam_plugin.baselines.cameras import CAMERAS
from holistic_cam_plugin.baselines.stage_refine_cam import StageRefineCAM
from holistic_cam_plugin.class_holistic_cam import ClassHolisticCAM
from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.names import GRAD_CAM_CLASSES, normalize_name
from holistic_cam_plugin.passes.targets import Target

__all__ = [
    "METHODS",
    "Method",
    "Progress",
    "choose_methods",
    "compute_maps",
    "display_name",
    "has_pyramid",
    "pyramid_options",
]

# Wraps a loop, as `tqdm` does.
Progress = Callable[[Iterable[Any]], Iterable[Any]]

_DISPLAY_NAMES = {
    "gradcam": "Grad-CAM",
    "gradcamplusplus": "Grad-CAM++",
    "layercam": "Layer-CAM",
    "xgradcam": "XGrad-CAM",
    "eigencam": "Eigen-CAM",
    "holisticcam": "Holistic-CAM",
    "classholisticcam": "Class Holistic-CAM",
    "refinecam": "RefineCAM (Grad-CAM++)",
}


METHODS: dict[str, type] = {
    **{normalize_name(name): getattr(pytorch_grad_cam, name) for name in GRAD_CAM_CLASSES},
    **{normalize_name(c.__name__): c for c in (CAM, CAMERAS, HolisticCAM, ClassHolisticCAM)},
    "refinecam": StageRefineCAM,
}


class Method(NamedTuple):
    """A method with its options.

    Attributes:
        key: of `METHODS`.
        options: keywords of `HolisticCAM`, for the methods that have a pyramid.
    """

    key: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The display name, such as `Grad-CAM++`; of `HolisticCAM` with its weighting, if that is not the paper's."""
        weighting = self.options.get("weighting", "pge")
        return display_name(self.key) + ("" if weighting == "pge" else f" {weighting}")


def choose_methods(keys: Sequence[str], sizes: Sequence[int] | str | None, amp: bool) -> list[Method]:
    """The methods, each once; those with a pyramid get its sizes, and `amp`."""
    options = {"amp": amp} | ({} if sizes is None else {"sizes": sizes})
    return [Method(key, options if has_pyramid(key) else {}) for key in dict.fromkeys(keys)]


def display_name(key: str) -> str:
    """The name of a method in figures and messages."""
    return _DISPLAY_NAMES.get(key, METHODS[key].__name__)


def has_pyramid(key: str) -> bool:
    """Whether the method takes the options of `HolisticCAM`."""
    return issubclass(METHODS[key], HolisticCAM)


def pyramid_options(cam_class: type, needed: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a model needs, for a method with a pyramid: only `ClassHolisticCAM` takes the mask layer."""
    return {k: v for k, v in needed.items() if k != "mask_layer" or issubclass(cam_class, ClassHolisticCAM)}


def compute_maps(
    method: Method,
    model: nn.Module,
    layers: Sequence[nn.Module],
    images: Tensor,
    targets: Sequence[Sequence[Target]],
    *,
    needed: Mapping[str, Any] = MappingProxyType({}),
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Compute the maps of images `(B, C, H, W)` in every layer.

    Args:
        targets: a list of targets for each image.
        needed: the options that the model needs, `Explainable.options`.
        aug_smooth, eigen_smooth: as in pytorch-grad-cam.
        progress: wraps the loop over the scales or, for a method without a pyramid, over the layers.

    Returns:
        `(layers, targets of all images, H, W)`, float32, in [0, 1], the targets of the first image first.

    Raises:
        ValueError: `aug_smooth` of a method without test-time augmentation.
    """
    cam_class: Any = METHODS[method.key]
    if has_pyramid(method.key):
        options = pyramid_options(cam_class, needed) | dict(method.options)
        options |= {"batch_size": len(images), "progress": progress}
        if aug_smooth:
            augmented = []
            for layer in layers:
                with cam_class(model, [layer], **options) as cam:
                    augmented.append(cam(images, targets, True, eigen_smooth))
            return np.stack(augmented)
        with cam_class(model, list(layers), **options) as cam:  # all layers share the passes through the model
            return np.stack([maps[:, 0] for maps in cam.compute_cam_per_layer(images, targets, eigen_smooth)])
    smoothing = {"eigen_smooth": eigen_smooth}
    if issubclass(cam_class, BaseCAM):
        smoothing["aug_smooth"] = aug_smooth
    elif aug_smooth:
        raise ValueError(f"{method.name} has no test-time augmentation (aug_smooth)")
    options = _select_options(cam_class, needed.get("reshape_transform"))
    pairs = [(image[None], [target]) for image, some in zip(images, targets, strict=True) for target in some]
    steps = layers if progress is None else progress(layers)
    return np.stack([_compute_one_by_one(cam_class(model, [layer], **options), pairs, smoothing) for layer in steps])


def _select_options(cam_class: type, reshape_transform: Callable[..., Tensor] | None) -> dict[str, Any]:
    """The keywords of a method without a pyramid."""
    if reshape_transform is None:
        return {}
    options: dict[str, Any] = {"reshape_transform": reshape_transform}
    if cam_class is AblationCAM:  # the channels of tokens are in the last dimension
        options["ablation_layer"] = AblationLayerVit()
    return options


def _compute_one_by_one(
    cam: Any, pairs: Iterable[tuple[Tensor, list[Target]]], smoothing: Mapping[str, bool]
) -> NDArray[np.float32]:
    """One image and target at a time: FullGrad and SESS mix the images of a batch."""
    try:
        return np.stack([cam(image, target, **smoothing)[0] for image, target in pairs]).astype(np.float32)
    finally:  # without the hooks; `with cam` would swallow an IndexError
        base = getattr(cam, "base_cam", cam)
        if isinstance(base, BaseCAM):
            base.activations_and_grads.release()
