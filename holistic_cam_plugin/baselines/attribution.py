"""Base class of competing methods, called as those of pytorch-grad-cam."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.checks import check_images
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.metrics.inputs import find_device
from holistic_cam_plugin.passes.capture import Capture, check_target_layers
from holistic_cam_plugin.passes.model_state import copy_inputs, eval_mode, unwrap_model
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, check_targets, predict_targets, total_score

__all__ = ["Attribution"]


class Attribution(ABC):
    """Base class of methods that return one map per image. A subclass implements `compute_maps`.

    The model, its gradients, training flags and hooks are left unchanged, also after an exception.

    Args:
        model: maps images `(B, C, H, W)` to a tensor with one row per image.
        target_layers: modules of the model; ignored by methods whose `needs_layers` is False.
        reshape_transform: as in pytorch-grad-cam.

    Raises:
        TypeError, ValueError: `target_layers` is not a list of modules of the model.
    """

    needs_layers = True

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        self.model = unwrap_model(model)
        self.target_layers = target_layers
        self.reshape_transform = reshape_transform
        if self.needs_layers:
            check_target_layers(self.model, target_layers)
        self.activations_and_grads = Capture(self.model, target_layers, reshape_transform)

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> NDArray[np.float32]:
        """Compute the maps of images.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            targets: one callable per image; None: the predicted classes.
            aug_smooth, eigen_smooth: must be False.

        Returns:
            `(B, H, W)`, float32, each map scaled to [0, 1].

        Raises:
            TypeError, ValueError: the images, the targets or the model's outputs are invalid.
        """
        if aug_smooth or eigen_smooth:
            raise ValueError(f"{type(self).__name__} does not support aug_smooth or eigen_smooth")
        images = check_images(input_tensor, find_device(self.model, input_tensor))
        check_targets(targets, len(images))
        try:
            with eval_mode(self.model), copy_inputs(self.model), torch.inference_mode(False), torch.enable_grad():
                if images.is_inference():  # inference tensors cannot be part of a graph
                    images = images.clone()
                if targets is None:
                    with torch.no_grad():
                        targets = predict_targets(check_outputs(self.model(images), len(images)))
                maps = self._join(self.compute_maps(images, targets), images.shape[2:])
        finally:
            self.activations_and_grads.clear()
        return np.stack([min_max_normalize(one) for one in torch.nan_to_num(maps.detach().float()).cpu().numpy()])

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return find_device(self.model, torch.empty(0))

    @abstractmethod
    def compute_maps(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """Compute one `(B, h, w)` tensor per target layer, in any unit and of any size.

        Args:
            images: `(B, C, H, W)`, on the model's device; the model is in evaluation mode, gradients are enabled.
            targets: one per image.
        """

    def combine(self, maps: Tensor) -> Tensor:
        """Combine the maps of several layers, `(B, layers, H, W)`: average them after scaling each to [0, 1]."""
        low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
        return torch.nan_to_num((maps - low) / (high - low)).mean(dim=1)

    def activations_and_gradients(self, images: Tensor, targets: Sequence[Target]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the target layers' activations and gradients of the targets' scores, `(B, C, h, w)`, float32, each."""
        outputs = check_outputs(self.activations_and_grads(images), len(images))
        return self.activations_and_grads.activations_and_gradients(total_score(targets, outputs))

    def _join(self, maps: Sequence[Tensor], size: torch.Size) -> Tensor:
        enlarged = [F.interpolate(one[:, None], size=size, mode="bilinear", align_corners=False) for one in maps]
        return enlarged[0][:, 0] if len(enlarged) == 1 else self.combine(torch.cat(enlarged, dim=1))

    def __enter__(self) -> Attribution:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """There is nothing to release."""
