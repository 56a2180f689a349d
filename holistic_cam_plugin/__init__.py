"""Holistic-CAM for pytorch-grad-cam: high-resolution class activation maps from shallow to deep layers."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holistic_cam_plugin.baselines.cameras import CAMERAS
    from holistic_cam_plugin.batch.engine import BatchExplainer
    from holistic_cam_plugin.class_holistic_cam import ClassHolisticCAM
    from holistic_cam_plugin.detections import BoxScoreTarget, DETRDetections, YOLODetections
    from holistic_cam_plugin.display.photo_maps import PhotoMaps
    from holistic_cam_plugin.holistic_cam import HolisticCAM
    from holistic_cam_plugin.method.class_mask import class_evidence
    from holistic_cam_plugin.method.fuse import fuse, fuse_principal
    from holistic_cam_plugin.method.holistic_map import holistic_map
    from holistic_cam_plugin.method.intermediates import Intermediates
    from holistic_cam_plugin.method.low_pass_wrap import (
        denoising_mask,
        fundamental_scale_denoising,
        kernel_size,
        low_pass_wrap,
    )
    from holistic_cam_plugin.method.normalize import min_max_normalize
    from holistic_cam_plugin.method.pge import positive_gradient_weights
    from holistic_cam_plugin.method.pyramid import pyramid_sizes, resize_image
    from holistic_cam_plugin.method.signs import signed_weights, split_signs
    from holistic_cam_plugin.models.check_geometry import Geometry, check_geometry
    from holistic_cam_plugin.models.explainable import Explainable, explainable
    from holistic_cam_plugin.notebook import show
    from holistic_cam_plugin.reshape_transforms import (
        fpn_reshape_transform,
        swin_reshape_transform,
        unit_reshape_transform,
        vit_reshape_transform,
    )

try:
    __version__ = version("holistic-cam-plugin")
except PackageNotFoundError:
    __version__ = "not installed"

__all__ = [
    "CAMERAS",
    "BatchExplainer",
    "BoxScoreTarget",
    "ClassHolisticCAM",
    "DETRDetections",
    "Explainable",
    "Geometry",
    "HolisticCAM",
    "Intermediates",
    "PhotoMaps",
    "YOLODetections",
    "check_geometry",
    "class_evidence",
    "denoising_mask",
    "explainable",
    "fpn_reshape_transform",
    "fundamental_scale_denoising",
    "fuse",
    "fuse_principal",
    "holistic_map",
    "kernel_size",
    "low_pass_wrap",
    "min_max_normalize",
    "positive_gradient_weights",
    "pyramid_sizes",
    "resize_image",
    "show",
    "signed_weights",
    "split_signs",
    "swin_reshape_transform",
    "unit_reshape_transform",
    "vit_reshape_transform",
]

# The module of each name, which is imported when the name is first used: `holistic-cam --help` does not need torch.
_MODULES = {
    "baselines.cameras": ("CAMERAS",),
    "batch.engine": ("BatchExplainer",),
    "class_holistic_cam": ("ClassHolisticCAM",),
    "detections": ("BoxScoreTarget", "DETRDetections", "YOLODetections"),
    "display.photo_maps": ("PhotoMaps",),
    "holistic_cam": ("HolisticCAM",),
    "method.class_mask": ("class_evidence",),
    "method.fuse": ("fuse", "fuse_principal"),
    "method.holistic_map": ("holistic_map",),
    "method.intermediates": ("Intermediates",),
    "method.low_pass_wrap": ("denoising_mask", "fundamental_scale_denoising", "kernel_size", "low_pass_wrap"),
    "method.normalize": ("min_max_normalize",),
    "method.pge": ("positive_gradient_weights",),
    "method.pyramid": ("pyramid_sizes", "resize_image"),
    "method.signs": ("signed_weights", "split_signs"),
    "models.check_geometry": ("Geometry", "check_geometry"),
    "models.explainable": ("Explainable", "explainable"),
    "notebook": ("show",),
    "reshape_transforms": (
        "fpn_reshape_transform",
        "swin_reshape_transform",
        "unit_reshape_transform",
        "vit_reshape_transform",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
