r"""RefineCAM of one layer: the product of its Grad-CAM++ map and those of the later stages.

$$M = \prod_{l \in \{k\} \cup \text{stages after } k} M^l$$

where $k$ is the target layer and $M^l$ the Grad-CAM++ map of layer $l$, scaled to [0, 1]; so is the product.

Paper: arXiv 2605.14641. The maps and the product are those of pytorch-grad-cam's `RefineCAM`, which multiplies the maps
of the layers that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAMPlusPlus, RefineCAM
from torch import Tensor, nn

from holistic_cam_plugin.models.maps import find_maps
from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.models.stages import choose_target_layers
from holistic_cam_plugin.passes.model_state import eval_mode
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target

__all__ = ["StageRefineCAM", "find_refining_layers"]


class StageRefineCAM:
    """RefineCAM of one layer and the last layer of each later stage, based on Grad-CAM++.

    For the last stage, the map is that of Grad-CAM++. No hooks are left on the model.

    Args:
        model: a classifier of images `(B, 3, H, W)`.
        target_layers: a list of one layer.
        reshape_transform: as in pytorch-grad-cam.

    Raises:
        ValueError: `target_layers` does not contain exactly one layer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        if len(target_layers) != 1:
            raise ValueError(f"RefineCAM takes one target layer at a time, got {len(target_layers)}")
        self.model = model
        self.target_layers = target_layers
        self.reshape_transform = reshape_transform

    def __call__(
        self, input_tensor: Tensor, targets: Sequence[Target] | None = None, eigen_smooth: bool = False
    ) -> NDArray[np.float32]:
        """Compute the maps of images: `(B, H, W)`, float32, in [0, 1]."""
        with eval_mode(self.model):  # RefineCAM does not restore the training flags
            layers = find_refining_layers(self.model, self.target_layers[0], input_tensor)
            cam = RefineCAM(self.model, layers, self.reshape_transform, base_method=_GradCAMPlusPlus)
            try:
                return np.asarray(cam(input_tensor, targets, eigen_smooth), dtype=np.float32)
            finally:
                for base in cam.base_cam_per_layer:
                    base.activations_and_grads.release()


def find_refining_layers(model: nn.Module, layer: nn.Module, images: Tensor) -> list[nn.Module]:
    """Find the last layer of each stage that ends after `layer`, in order of execution; `layer` itself comes first.

    Args:
        model: in evaluation mode.
        layer: a module of the model; returned alone if it runs several times.
        images: `(B, C, H, W)`; a square crop of the first one passes through the model.
    """
    side = min(images.shape[-2:])
    square = images[:1, :, :side, :side]
    with preserve_model(model):
        outputs = check_outputs(model(square), 1)
        maps, _ = find_maps(model, square)
        targets = choose_target_layers(model, maps, outputs.shape, square)
    run = [one.module for one in maps if one.calls == 1]
    later = run[run.index(layer) + 1 :] if layer in run else []
    return [layer, *(one.module for one in targets if one.module in later)]


class _GradCAMPlusPlus(GradCAMPlusPlus):
    """RefineCAM passes `eigen_smooth` as the third argument, which is `aug_smooth` in pytorch-grad-cam's methods."""

    def __call__(
        self, input_tensor: Tensor, targets: Sequence[Target] | None = None, eigen_smooth: bool = False
    ) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = super().__call__(input_tensor, targets, eigen_smooth=eigen_smooth)
        return maps
