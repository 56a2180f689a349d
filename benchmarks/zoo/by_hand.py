"""Models that `explainable` does not take, wired as the guides say: segmenters, detectors and video models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import BoxScoreTarget, Explainable

__all__ = ["Wiring", "wire_by_hand", "wire_found"]

_SEGMENTED_CLASS = 5
_SIDE, _DETECTOR_SIDE = 224, 320


@dataclass
class Wiring:
    """What `ClassHolisticCAM` gets.

    Attributes:
        model: returns logits, dense logits or detections.
        layers, names: target layers, and the layer of the class mask if there is one.
        targets: how many of the layers are target layers.
        size: of the pictures, of videos after the number of frames.
        multiple_of: as in `Explainable`.
        options: keyword arguments.
        choose_target: makes the target of the output for one picture; None: the predicted class.
    """

    model: nn.Module
    layers: list[nn.Module]
    names: list[str]
    targets: int
    size: tuple[int, ...]
    multiple_of: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)
    choose_target: Callable[[Any], Any] | None = None


def wire_found(found: Explainable) -> Wiring:
    """Wire what `explainable` found."""
    layers, names = [*found.target_layers], [*found.layer_names]
    mask_layer = found.options.get("mask_layer")
    if isinstance(mask_layer, nn.Module) and mask_layer not in layers:
        layers, names = [*layers, mask_layer], [*names, "mask layer"]
    targets = len(found.target_layers)
    return Wiring(found.model, layers, names, targets, found.size, found.multiple_of, found.options)


def wire_by_hand(name: str, model: nn.Module) -> Wiring | None:
    """Wire a segmenter, a detector or a video model of torchvision; None for other models."""
    library = torchvision.models
    if name in library.list_models(module=library.segmentation):
        return _wire_segmenter(model)
    if name in library.list_models(module=library.detection):
        return _wire_detector(name, model)
    if name in library.list_models(module=library.video):
        return _wire_video(name, model)
    return None


def _wire_segmenter(model: Any) -> Wiring:
    model.register_forward_hook(lambda module, inputs, output: output["out"])
    key = "high" if "high" in model.backbone.return_layers.values() else "out"
    options = {"reshape_transform": lambda maps: maps[key]}

    def choose_target(output: Tensor) -> Any:
        return SemanticSegmentationTarget(_SEGMENTED_CLASS, torch.ones(output.shape[-2:]).numpy())

    return Wiring(model, [model.backbone], ["backbone"], 1, (_SIDE, _SIDE), 1, options, choose_target)


def _wire_detector(name: str, model: Any) -> Wiring:
    model.transform.resize = lambda image, target: (image, target)  # all scales would become the same
    reshape = fasterrcnn_reshape_transform if "rcnn" in name else _join_levels
    step = model.transform.size_divisible  # pictures of other sizes are padded
    options = {"reshape_transform": reshape, "multiple_of": step}

    def choose_target(detections: dict[str, Tensor]) -> Any:
        return BoxScoreTarget(detections["boxes"][:1], detections["labels"][:1], iou_threshold=0)

    size = (_DETECTOR_SIDE, _DETECTOR_SIDE)
    return Wiring(model, [model.backbone], ["backbone"], 1, size, step, options, choose_target)


def _join_levels(maps: dict[str, Tensor]) -> Tensor:
    """Join the levels of a feature pyramid in the size of the finest."""
    size = next(iter(maps.values())).shape[2:]
    return torch.cat([F.interpolate(level, size) for level in maps.values()], dim=1)


def _wire_video(name: str, model: Any) -> Wiring:
    if name.startswith("swin3d"):  # (B, t, h, w, C)
        options = {"reshape_transform": lambda maps: maps.permute(0, 4, 1, 2, 3)}
        return Wiring(model, [model.features[-1]], ["features.6"], 1, (4, 128, 128), 32, options)
    if name.startswith("mvit"):  # one size; tokens, after a class token, of the last block's input
        layer = model.blocks[-1].norm1

        def reshape(tokens: Tensor) -> Tensor:
            maps: Tensor = tokens[:, 1:].unflatten(1, (8, 7, 7))
            return maps.movedim(-1, 1)

        return Wiring(model, [layer], ["blocks.15.norm1"], 1, (16, 224, 224), None, {"reshape_transform": reshape})
    if name == "s3d":
        return Wiring(model, [model.features[12]], ["features.12"], 1, (16, 224, 224), 1)
    return Wiring(model, [model.layer3], ["layer3"], 1, (8, 112, 112), 1)
