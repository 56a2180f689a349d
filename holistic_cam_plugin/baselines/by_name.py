"""Methods by the names that the library's own command line uses, and the maps that they give."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pytorch_grad_cam
from numpy.typing import NDArray
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from holistic_cam_plugin.baselines.cam import CAM
from holistic_cam_plugin.baselines.cameras import CAMERAS
from holistic_cam_plugin.baselines.emp import EMP
from holistic_cam_plugin.baselines.igos import IGOS
from holistic_cam_plugin.baselines.msg_cam import MSGCAM
from holistic_cam_plugin.baselines.normgrad import NormGrad
from holistic_cam_plugin.baselines.perturbation import Perturbation
from holistic_cam_plugin.baselines.rise import RISE
from holistic_cam_plugin.baselines.stage_refine_cam import StageRefineCAM
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.passes.targets import Target

__all__ = ["DEFAULT_METHODS", "METHODS", "display_name", "layer_maps", "method_key"]

DEFAULT_METHODS = ("gradcam", "gradcamplusplus", "layercam", "cameras", "holisticcam", "holisticcampositive")

_META_METHODS = ("FinerCAM", "SESS")
_DISPLAY_NAMES = {
    "gradcam": "Grad-CAM",
    "gradcamplusplus": "Grad-CAM++",
    "layercam": "Layer-CAM",
    "xgradcam": "XGrad-CAM",
    "eigencam": "Eigen-CAM",
    "holisticcam": "Holistic-CAM",
    "holisticcampositive": "Holistic-CAM positive",
    "holisticcamgated": "Holistic-CAM gated",
    "igos": "I-GOS",
    "msgcam": "MSG-CAM",
    "refinecam": "RefineCAM (Grad-CAM++)",
}


def _normalized(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower()).replace("++", "plusplus")


def _library_methods() -> dict[str, type]:
    exported = vars(pytorch_grad_cam)
    classes = [c for c in exported.values() if isinstance(c, type) and issubclass(c, BaseCAM)]
    classes += [exported[name] for name in _META_METHODS]
    return {_normalized(c.__name__): c for c in classes}


class _PositiveHolisticCAM(HolisticCAM):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, weighting="positive", **kwargs)


class _GatedHolisticCAM(HolisticCAM):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, weighting="gated", **kwargs)


METHODS: dict[str, type] = {
    **dict(sorted({**_library_methods(), "refinecam": StageRefineCAM}.items())),
    **{_normalized(c.__name__): c for c in (CAM, CAMERAS, EMP, IGOS, MSGCAM, NormGrad, RISE)},
    "holisticcam": HolisticCAM,
    "holisticcampositive": _PositiveHolisticCAM,
    "holisticcamgated": _GatedHolisticCAM,
}


def method_key(name: str) -> str:
    """The key in `METHODS` of a name as users write it: `Grad-CAM++`, `gradcam++` or `gradcamplusplus`.

    Raises:
        UsageError: no such method; near matches are named.
    """
    key = _normalized(name)
    if key not in METHODS:
        known = ", ".join(METHODS)
        raise UsageError(f"no method is called {name!r}{near_matches(key, METHODS) or f'; known: {known}'}")
    return key


def display_name(method: str) -> str:
    """How the method is written in a figure."""
    return _DISPLAY_NAMES.get(method, METHODS[method].__name__)


def layer_maps(
    method: str,
    model: nn.Module,
    layers: Sequence[nn.Module],
    images: Tensor,
    targets: Sequence[Sequence[Target]],
    *,
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    sizes: Sequence[int] | str | None = None,
    amp: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[NDArray[np.float32]]:
    """The maps of images `(B, C, H, W)` in every layer, float32, in [0, 1].

    Args:
        targets: a list of targets for each image.
        sizes: shorter sides of the pyramid in pixels, or its name, for the methods that have one; None: their own.
        amp: the model in bfloat16, for Holistic-CAM and its settings.
        options: what the model needs, as `Explainable.options` tells; of the methods without a pyramid only the reshape
            transform.

    Returns:
        For every layer `(targets of all images, H, W)`, those of the first image first; the same maps in every layer of
        a method that looks at none.

    Raises:
        UsageError: the method has no test-time augmentation.
    """
    cam_class: Any = METHODS[method]
    if issubclass(cam_class, HolisticCAM):
        pyramid: dict[str, Any] = {"batch_size": len(images), "amp": amp, "progress": progress}
        pyramid |= {} if sizes is None else {"sizes": sizes}
        make = partial(cam_class, model, **options, **pyramid)
        return _pyramid_maps(make, layers, images, targets, aug_smooth, eigen_smooth)
    if aug_smooth and not issubclass(cam_class, BaseCAM):
        raise UsageError(f"{method} has no test-time augmentation: leave out --aug-smooth or {method}")
    smoothing = {"aug_smooth": aug_smooth} if issubclass(cam_class, BaseCAM) else {}
    needed = _plain_options(cam_class, options.get("reshape_transform"))
    no_layer = issubclass(cam_class, Perturbation)
    layered = [()] if no_layer else [[layer] for layer in layers]
    pairs = [(image[None], [target]) for image, some in zip(images, targets, strict=True) for target in some]
    maps = [_maps(cam_class(model, some, **needed), pairs, eigen_smooth=eigen_smooth, **smoothing) for some in layered]
    return maps * len(layers) if no_layer else maps


def _plain_options(cam_class: type, reshape_transform: Callable[..., Tensor] | None) -> dict[str, Any]:
    """Keywords of a method without a pyramid."""
    if reshape_transform is None:
        return {}
    options: dict[str, Any] = {"reshape_transform": reshape_transform}
    if cam_class is AblationCAM:  # switches channels off where they lie: of tokens last
        options["ablation_layer"] = AblationLayerVit()
    return options


def _maps(cam: Any, pairs: Iterable[tuple[Tensor, list[Target]]], **options: Any) -> NDArray[np.float32]:
    """One image and target at a time: some of the library's methods mix the images of a batch (FullGrad, SESS)."""
    with _released(cam):
        return np.stack([cam(image, target, **options)[0] for image, target in pairs]).astype(np.float32)


def _pyramid_maps(
    make: Callable[[list[nn.Module]], HolisticCAM],
    layers: Sequence[nn.Module],
    images: Tensor,
    targets: Sequence[Sequence[Target]],
    aug_smooth: bool,
    eigen_smooth: bool,
) -> list[NDArray[np.float32]]:
    """The targets share the passes through the model, and so do the layers, if each map is of the image alone."""
    if not aug_smooth:
        with make(list(layers)) as cam:
            return [maps[:, 0] for maps in cam.compute_cam_per_layer(images, targets, eigen_smooth)]
    maps = []
    for layer in layers:
        with make([layer]) as cam:
            maps.append(cam(images, targets, True, eigen_smooth))
    return maps


@contextmanager
def _released(cam: Any) -> Iterator[None]:
    """A method, afterwards without the hooks that the library's have: they would store every pass of all that follow.

    The library's own `with` swallows an IndexError.
    """
    try:
        yield
    finally:
        base = getattr(cam, "base_cam", cam)
        if isinstance(base, BaseCAM):
            base.activations_and_grads.release()
