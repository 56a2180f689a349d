"""Methods under test by name: the library's, ours, rivals and controls, each as maps of several layers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytorch_grad_cam as library
from numpy.typing import NDArray
from torch import Tensor, nn

from holistic_cam_plugin.baselines.cam import CAM
from holistic_cam_plugin.baselines.cameras import CAMERAS
from holistic_cam_plugin.baselines.emp import EMP
from holistic_cam_plugin.baselines.igos import IGOS
from holistic_cam_plugin.baselines.legrad import LeGrad
from holistic_cam_plugin.baselines.msg_cam import MSGCAM
from holistic_cam_plugin.baselines.normgrad import NormGrad
from holistic_cam_plugin.baselines.rise import RISE
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.holistic_cam import HolisticCAM
from holistic_cam_plugin.method.low_pass_wrap import fundamental_scale_denoising
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.metrics import CenteredGaussian
from holistic_cam_plugin.passes.targets import Target

__all__ = ["DEFAULT_METHODS", "EXPLAINERS", "NO_LAYER", "WRAP", "MapsByMethod", "check_methods", "maps_by_method"]

Map = NDArray[np.float32]
MapsByMethod = dict[tuple[str, str], Map]  # by layer and method
Options = Mapping[str, Any]  # what `HolisticCAM` needs for the model

NO_LAYER = "-"  # the layer of a method that looks at none
WRAP = "+LPW"  # after a method's name: its maps with the low-pass wrap of themselves

DEFAULT_METHODS = (
    *("Grad-CAM", "Grad-CAM++", "XGrad-CAM", "Eigen-CAM", "Layer-CAM", "CAMERAS", "Relevance-CAM", "RefineCAM"),
    *(
        "Holistic-CAM",
        "Holistic-CAM positive",
        "Gaussian",
        "Grad-CAM+LPW",
        "Layer-CAM+LPW",
        "CAMERAS+LPW",
        "Relevance-CAM+LPW",
    ),
)


def maps_by_method(
    model: nn.Module,
    layers: Sequence[str],
    methods: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options = MappingProxyType({}),
) -> MapsByMethod:
    """Every method's map of one image in every layer; what is shared is computed once.

    Args:
        layers: names of modules of `model`, shallow to deep.
        methods: names in `EXPLAINERS`, also with "+LPW" behind.
        image: `(1, 3, H, W)`, on the model's device.
        options: as `Explainable.options` tells; of the library's methods only the reshape transform.

    Returns:
        Maps `(H, W)` in [0, 1], layer by layer in the order of `methods`; methods without a layer come last.
    """
    found: MapsByMethod = {}
    for name in dict.fromkeys(method.removesuffix(WRAP) for method in methods):
        where = [NO_LAYER] if name in _WITHOUT_LAYER else layers
        for layer, saliency_map in zip(where, EXPLAINERS[name](model, layers, image, target, options), strict=True):
            found[layer, name] = saliency_map
            if name + WRAP in methods:
                found[layer, name + WRAP] = min_max_normalize(fundamental_scale_denoising(saliency_map, saliency_map))
    return {key: found[key] for layer in (*layers, NO_LAYER) for key in ((layer, m) for m in methods) if key in found}


def check_methods(names: Sequence[str]) -> None:
    """Raise UsageError for a name that is no method."""
    for name in names:
        if name.removesuffix(WRAP) not in EXPLAINERS:
            raise UsageError(f"no method {name!r}{near_matches(name, EXPLAINERS)}; known: {', '.join(EXPLAINERS)}")


def _single(
    cam_class: Callable[..., Any],
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options,
) -> list[Map]:
    """A method that takes one layer at a time. Its object, and with it its hooks, is gone before the next one."""
    reshape = options.get("reshape_transform")
    return [_float(cam_class(model, [model.get_submodule(name)], reshape)(image, [target])) for name in layers]


def _pyramid(
    cam_class: Callable[..., HolisticCAM],
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options,
) -> list[Map]:
    """Holistic-CAM and CAMERAS: one pyramid serves all the layers."""
    cam = cam_class(model, [model.get_submodule(name) for name in layers], **options)
    return [maps[0, 0] for maps in cam.compute_cam_per_layer(image, [target])]


def _relevance(*args: Any) -> list[Map]:
    # Needs zennit, an optional extra.
    from holistic_cam_plugin.baselines.relevance_cam import RelevanceCAM

    return _single(RelevanceCAM, *args)


def _sess(*args: Any) -> list[Map]:
    return _single(partial(library.SESS, base_method=library.LayerCAM, batch_size=16), *args)


def _refine(model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options) -> list[Map]:
    """The product of Layer-CAM over a layer and all the deeper ones of `layers`.

    RefineCAM denoises the maps of early layers with those of later ones; at the deepest layer nothing is left to
    multiply with, and it is Layer-CAM.
    """
    modules = [model.get_submodule(name) for name in layers]
    return [_refined(model, modules[place:], image, target, options) for place in range(len(modules))]


def _refined(model: nn.Module, modules: list[nn.Module], image: Tensor, target: Target, options: Options) -> Map:
    reshape = options.get("reshape_transform")
    return _float(library.RefineCAM(model, modules, reshape, base_method=library.LayerCAM)(image, [target]))


def _blind(make: Callable[[nn.Module], Callable[..., Any]], model: nn.Module, *args: Any) -> list[Map]:
    """A method or control that looks at no layer."""
    _, image, target, _ = args
    return [_float(make(model)(image, [target]))]


def _class_activation(
    model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options
) -> list[Map]:
    """CAM itself, of the deepest layer, where alone it is defined."""
    return _single(CAM, model, layers[-1:], image, target, options)


def _finer(*args: Any) -> list[Map]:
    """FinerCAM over ours: against the classes that are next in likeness."""
    return _single(partial(library.FinerCAM, base_method=HolisticCAM), *args)


def _uniform(model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options) -> list[Map]:
    """The same everywhere: its energy in the box is the box's share of the image."""
    return [np.ones(image.shape[-2:], np.float32)]


def _edges(model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options) -> list[Map]:
    """The picture's own edges, which know nothing of the model: the magnitude of its Sobel gradient."""
    grey = image[0].mean(dim=0).cpu().numpy()
    return [min_max_normalize(np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))))]


def _float(maps: Any) -> Map:
    return np.asarray(maps[0], dtype=np.float32)


_WITHOUT_LAYER = ("CAM", "EMP", "Edges", "Gaussian", "I-GOS", "LeGrad", "RISE", "Uniform")

# By name: the maps of one image in every layer.
EXPLAINERS: dict[str, Callable[[nn.Module, Sequence[str], Tensor, Target, Options], list[Map]]] = {
    "Grad-CAM": partial(_single, library.GradCAM),
    "Grad-CAM++": partial(_single, library.GradCAMPlusPlus),
    "XGrad-CAM": partial(_single, library.XGradCAM),
    "HiResCAM": partial(_single, library.HiResCAM),
    "Eigen-CAM": partial(_single, library.EigenCAM),
    "Layer-CAM": partial(_single, library.LayerCAM),
    "Score-CAM": partial(_single, library.ScoreCAM),
    "NormGrad": partial(_single, NormGrad),
    "MSG-CAM": partial(_single, MSGCAM),
    "CAM": _class_activation,
    "CAMERAS": partial(_pyramid, CAMERAS),
    "Relevance-CAM": _relevance,
    "SESS": _sess,
    "RefineCAM": _refine,
    "LeGrad": partial(_blind, LeGrad),
    "RISE": partial(_blind, RISE),
    "EMP": partial(_blind, EMP),
    "I-GOS": partial(_blind, IGOS),
    "Holistic-CAM": partial(_pyramid, HolisticCAM),
    "Holistic-CAM positive": partial(_pyramid, partial(HolisticCAM, weighting="positive")),
    "Holistic-CAM gated": partial(_pyramid, partial(HolisticCAM, weighting="gated")),
    "FinerCAM": _finer,
    "Gaussian": partial(_blind, CenteredGaussian),
    "Uniform": _uniform,
    "Edges": _edges,
}
