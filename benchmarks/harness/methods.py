"""Registry of the methods under test: pytorch-grad-cam's, ours, competing methods and controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytorch_grad_cam
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.methods import EMP, IGOS, MSGCAM, RISE, LeGrad, NormGrad
from holistic_cam_plugin import (
    CAMERAS,
    ClassHolisticCAM,
    HolisticCAM,
    class_evidence,
    denoising_mask,
    fundamental_scale_denoising,
    holistic_map,
    min_max_normalize,
)
from holistic_cam_plugin.baselines.cam import CAM
from holistic_cam_plugin.class_holistic_cam import RECOMMENDED
from holistic_cam_plugin.errors import UsageError, near_matches
from holistic_cam_plugin.methods import pyramid_options
from holistic_cam_plugin.metrics import CenteredGaussian
from holistic_cam_plugin.models.mask_layer import find_mask_layer
from holistic_cam_plugin.names import FAST, PAPER
from holistic_cam_plugin.passes.targets import Target

__all__ = [
    "CLASS_MASKED",
    "DEFAULT_METHODS",
    "EXPLAINERS",
    "MASKED",
    "NO_LAYER",
    "MapsByMethod",
    "check_methods",
    "explain_methods",
    "remove_mask",
]

Map = NDArray[np.float32]
MapsByMethod = dict[tuple[str, str], Map]  # by layer and method
Options = Mapping[str, Any]  # see `Explainable.options`
# Computes the maps of one image in each layer.
Explain = Callable[[nn.Module, Sequence[str], Tensor, Target, Options], list[Map]]

NO_LAYER = "-"  # the layer of methods that use none
MASKED = "+LPW"  # suffix of a method whose maps are masked by themselves
CLASS_MASKED = "+class"  # suffix of a method whose maps are masked by Class Holistic-CAM's mask

DEFAULT_METHODS = (
    *("Grad-CAM", "Grad-CAM++", "XGrad-CAM", "Eigen-CAM", "Layer-CAM", "CAMERAS", "Relevance-CAM", "RefineCAM"),
    *("Holistic-CAM", "Class Holistic-CAM", "Gaussian"),
    *("Grad-CAM+LPW", "Layer-CAM+LPW", "CAMERAS+LPW", "Relevance-CAM+LPW"),
)


def explain_methods(
    model: nn.Module,
    layers: Sequence[str],
    methods: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options = MappingProxyType({}),
) -> MapsByMethod:
    """Compute the map of every method in every layer.

    Args:
        layers: names of modules of `model`, shallow to deep.
        methods: names in `EXPLAINERS`, optionally with the suffix "+LPW" or "+class".
        image: `(1, 3, H, W)`, on the model's device.
        options: see `Explainable.options`; methods without a pyramid use only the reshape transform.

    Methods of the same pyramid share the passes through the model.

    Returns:
        Maps `(H, W)` in [0, 1], by layer and then in the order of `methods`; methods without a layer come last.
    """
    found: MapsByMethod = {}
    masked = any(method.endswith(CLASS_MASKED) for method in methods)
    ours = [method for method in methods if method in _SHARED]
    class_mask = None
    if len(ours) > 1 or masked:
        shared, class_mask = _share_passes(model, layers, ours, image, target, options, masked)
        found |= shared
    for name in dict.fromkeys(map(remove_mask, methods)):
        where = [NO_LAYER] if name in _WITHOUT_LAYER else layers
        if (where[0], name) in found:
            maps = [found[layer, name] for layer in where]
        else:
            maps = EXPLAINERS[name](model, layers, image, target, options)
        for layer, saliency_map in zip(where, maps, strict=True):
            found[layer, name] = saliency_map
            if name + MASKED in methods:
                found[layer, name + MASKED] = min_max_normalize(fundamental_scale_denoising(saliency_map, saliency_map))
            if class_mask is not None and name + CLASS_MASKED in methods:
                found[layer, name + CLASS_MASKED] = min_max_normalize(saliency_map * class_mask)
    return {key: found[key] for layer in (*layers, NO_LAYER) for key in ((layer, m) for m in methods) if key in found}


def remove_mask(method: str) -> str:
    """The method's name without the suffix of a mask."""
    return method.removesuffix(MASKED).removesuffix(CLASS_MASKED)


def check_methods(names: Sequence[str]) -> None:
    """Raise UsageError for an unknown method."""
    for name in names:
        if remove_mask(name) not in EXPLAINERS:
            raise UsageError(f"no method {name!r}{near_matches(name, EXPLAINERS)}; known: {', '.join(EXPLAINERS)}")


def _explain_layers(
    cam_class: Callable[..., Any],
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options,
) -> list[Map]:
    """Run a method on one layer after the other; its hooks are removed in between."""
    reshape = options.get("reshape_transform")
    return [_first(cam_class(model, [model.get_submodule(name)], reshape)(image, [target])) for name in layers]


def _explain_pyramid(
    cam_class: type[HolisticCAM],
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options,
    **own: Any,
) -> list[Map]:
    """Run Holistic-CAM or CAMERAS, with keywords of its own, once for all layers."""
    needed = pyramid_options(cam_class, options)
    cam = cam_class(model, [model.get_submodule(name) for name in layers], **needed, **own)
    return [maps[0, 0] for maps in cam.compute_cam_per_layer(image, [target])]


def _share_passes(
    model: nn.Module,
    layers: Sequence[str],
    methods: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options,
    masked: bool,
) -> tuple[MapsByMethod, Map | None]:
    """Compute the maps of variants of Holistic-CAM from the same passes and, if `masked`, Class Holistic-CAM's mask."""
    modules = [model.get_submodule(name) for name in layers]
    mask_layer = options.get("mask_layer") or find_mask_layer(model, image, [target], options.get("reshape_transform"))
    if mask_layer is None:
        raise UsageError("no layer of the model gives a class mask: leave out Class Holistic-CAM")
    own = {"weighting": "gradient", "fsd": False, "mask_layer": None}
    size = (image.shape[-2], image.shape[-1])
    maps, class_mask = {}, None
    for sizes in dict.fromkeys([*(_SHARED[name].sizes for name in methods), *([FAST] if masked else [])]):
        cam = HolisticCAM(model, [*modules, mask_layer], **{**options, **own, "sizes": sizes})
        *records, deepest = [record for (record,) in cam.intermediates(image, [target])]
        evidence = class_evidence(deepest.activations, deepest.weights, size, RECOMMENDED["contrast"])
        if sizes == FAST:
            class_mask = denoising_mask(evidence).astype(np.float32)
        variants = {name: _SHARED[name] for name in methods if _SHARED[name].sizes == sizes}
        for (layer, record), (name, variant) in product(zip(layers, records, strict=True), variants.items()):
            of_class = evidence if variant.of_class else None
            result = holistic_map(record.activations, record.weights, size, evidence=of_class, **variant.settings)
            maps[layer, name] = result.saliency_map
    return maps, class_mask


def _explain_image(
    build: Callable[[nn.Module], Callable[..., Any]],
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: Target,
    options: Options,
) -> list[Map]:
    """Run a method that uses no layer."""
    return [_first(build(model)(image, [target]))]


def _run_relevance_cam(*args: Any) -> list[Map]:
    # Needs zennit, an optional dependency.
    from holistic_cam_plugin.baselines.relevance_cam import RelevanceCAM

    return _explain_layers(RelevanceCAM, *args)


def _run_refine_cam(
    model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options
) -> list[Map]:
    """Multiply the Layer-CAM maps of each layer and all deeper ones of `layers`; the deepest layer has Layer-CAM's."""
    modules, reshape = [model.get_submodule(name) for name in layers], options.get("reshape_transform")
    refine = partial(pytorch_grad_cam.RefineCAM, model, base_method=pytorch_grad_cam.LayerCAM)
    return [_first(refine(modules[place:], reshape)(image, [target])) for place in range(len(modules))]


def _run_cam(model: nn.Module, layers: Sequence[str], *args: Any) -> list[Map]:
    """Run CAM in the deepest layer; it is not defined in others."""
    return _explain_layers(CAM, model, layers[-1:], *args)


def _make_uniform(
    model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options
) -> list[Map]:
    return [np.ones(image.shape[-2:], np.float32)]


def _find_edges(model: nn.Module, layers: Sequence[str], image: Tensor, target: Target, options: Options) -> list[Map]:
    """Compute the magnitude of the picture's Sobel gradient, which does not depend on the model."""
    grey = image[0].mean(dim=0).cpu().numpy()
    return [min_max_normalize(np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))))]


def _first(maps: Any) -> Map:
    return np.asarray(maps[0], dtype=np.float32)


class _Variant(NamedTuple):
    """A method that shares its passes: pyramid, arguments of `holistic_map`, and whether the mask is the class's."""

    sizes: str
    settings: Options = MappingProxyType({})
    of_class: bool = False


_CLASS = _Variant(FAST, {key: RECOMMENDED[key] for key in ("weighting", "fuse_base", "by_positions")}, of_class=True)
_SHARED = {
    "Holistic-CAM": _Variant(PAPER),
    "Holistic-CAM positive": _Variant(PAPER, {"weighting": "positive"}),
    "Class Holistic-CAM": _CLASS,
    "Class Holistic-CAM (7 scales)": _CLASS._replace(sizes=PAPER),
}
_WITHOUT_LAYER = ("CAM", "EMP", "Edges", "Gaussian", "I-GOS", "LeGrad", "RISE", "Uniform")

EXPLAINERS: dict[str, Explain] = {
    "Grad-CAM": partial(_explain_layers, pytorch_grad_cam.GradCAM),
    "Grad-CAM++": partial(_explain_layers, pytorch_grad_cam.GradCAMPlusPlus),
    "XGrad-CAM": partial(_explain_layers, pytorch_grad_cam.XGradCAM),
    "HiResCAM": partial(_explain_layers, pytorch_grad_cam.HiResCAM),
    "Eigen-CAM": partial(_explain_layers, pytorch_grad_cam.EigenCAM),
    "Layer-CAM": partial(_explain_layers, pytorch_grad_cam.LayerCAM),
    "Score-CAM": partial(_explain_layers, pytorch_grad_cam.ScoreCAM),
    "SESS": partial(
        _explain_layers, partial(pytorch_grad_cam.SESS, base_method=pytorch_grad_cam.LayerCAM, batch_size=16)
    ),
    "RefineCAM": _run_refine_cam,
    "FinerCAM": partial(_explain_layers, partial(pytorch_grad_cam.FinerCAM, base_method=HolisticCAM)),
    "NormGrad": partial(_explain_layers, NormGrad),
    "MSG-CAM": partial(_explain_layers, MSGCAM),
    "CAM": _run_cam,
    "CAMERAS": partial(_explain_pyramid, CAMERAS),
    "Relevance-CAM": _run_relevance_cam,
    "LeGrad": partial(_explain_image, LeGrad),
    "RISE": partial(_explain_image, RISE),
    "EMP": partial(_explain_image, EMP),
    "I-GOS": partial(_explain_image, IGOS),
    "Holistic-CAM": partial(_explain_pyramid, HolisticCAM),
    "Holistic-CAM positive": partial(_explain_pyramid, HolisticCAM, weighting="positive"),
    "Class Holistic-CAM": partial(_explain_pyramid, ClassHolisticCAM),
    "Class Holistic-CAM (7 scales)": partial(_explain_pyramid, ClassHolisticCAM, sizes=PAPER),
    "Gaussian": partial(_explain_image, CenteredGaussian),
    "Uniform": _make_uniform,
    "Edges": _find_edges,
}
