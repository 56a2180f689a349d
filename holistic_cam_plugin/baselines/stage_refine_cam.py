r"""RefineCAM of a layer: its Grad-CAM++ map times those of the deeper stages, which denoise it.

$$M = \prod_{l \in \{k\} \cup \text{stages after } k} M^l$$

where $k$ is the explained layer and $M^l$ the Grad-CAM++ map of layer $l$, scaled to [0, 1], as the product is.

Paper: arXiv 2605.14641. Maps and product are the library's `RefineCAM`, which multiplies what it is given: of one layer
alone it is its base method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAMPlusPlus, RefineCAM
from torch import Tensor, nn

from holistic_cam_plugin.classifiers.explainable import stages_of
from holistic_cam_plugin.classifiers.probe import untouched
from holistic_cam_plugin.passes.modes import eval_mode
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target

__all__ = ["StageRefineCAM", "refining_layers"]


class StageRefineCAM:
    """The library's RefineCAM of one layer and the last layers of the stages after it, over Grad-CAM++.

    The deepest stage has none after it: there the map is Grad-CAM++'s. No hook is left on the model.

    Args:
        model: a classifier of images `(B, 3, H, W)`.
        target_layers: the one layer to explain, in a list.
        reshape_transform: as in the library.

    Raises:
        ValueError: more or less than one layer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        if len(target_layers) != 1:
            raise ValueError(f"one layer at a time is refined with those after it, got {len(target_layers)}")
        self.model = model
        self.target_layers = target_layers
        self.reshape_transform = reshape_transform

    def __call__(
        self, input_tensor: Tensor, targets: Sequence[Target] | None = None, eigen_smooth: bool = False
    ) -> NDArray[np.float32]:
        """Maps of the images as of the library's RefineCAM: `(B, H, W)`, float32, in [0, 1]."""
        with eval_mode(self.model):  # the library leaves it in evaluation mode
            layers = refining_layers(self.model, self.target_layers[0], input_tensor)
            cam = RefineCAM(self.model, layers, self.reshape_transform, base_method=_GradCAMPlusPlus)
            try:
                return np.asarray(cam(input_tensor, targets, eigen_smooth), dtype=np.float32)
            finally:
                for base in cam.base_cam_per_layer:
                    base.activations_and_grads.release()


def refining_layers(model: nn.Module, layer: nn.Module, images: Tensor) -> list[nn.Module]:
    """The layer, and the last layer of each stage that finishes after it, in the order in which they run.

    A layer that runs several times has no place in this order and comes alone.

    Args:
        model: in evaluation mode.
        layer: a module of it.
        images: `(B, C, H, W)`; a square of the first one goes through the model to see the order.
    """
    side = min(images.shape[-2:])
    square = images[:1, :, :side, :side]
    with untouched(model):
        with torch.inference_mode():
            classes = check_outputs(model(square), 1).shape[1:2].numel()
        maps, stages = stages_of(model, square, classes)
    run = [one.returned.module for one in maps if one.returned.calls == 1]
    later = run[run.index(layer) + 1 :] if layer in run else []
    return [layer, *(one.returned.module for one in stages if one.returned.module in later)]


class _GradCAMPlusPlus(GradCAMPlusPlus):
    """RefineCAM passes `eigen_smooth` third, where the library's methods take `aug_smooth`."""

    def __call__(
        self, input_tensor: Tensor, targets: Sequence[Target] | None = None, eigen_smooth: bool = False
    ) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = super().__call__(input_tensor, targets, eigen_smooth=eigen_smooth)
        return maps
