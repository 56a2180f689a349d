"""What the rivals share: built and called as the library's methods are, and no trace left on the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.method.pyramid import check_images
from holistic_cam_plugin.metrics.scoring import model_device
from holistic_cam_plugin.passes.capture import Capture, check_target_layers
from holistic_cam_plugin.passes.modes import eval_mode, own_inputs, unwrapped
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, check_targets, predicted_targets, total_score

__all__ = ["Attribution", "LayerAttribution"]

Maps = NDArray[np.float32]


class Attribution(ABC):
    """A method that gives one map an image. A subclass says how, in `saliency`.

    The model, its gradients, flags, modes and hooks are as before after every call, also after an exception.

    Args:
        model: any module that maps images `(B, C, H, W)` to one tensor with a row an image.
        target_layers, reshape_transform: as in the library; not used by methods that look at no layer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        self.model = unwrapped(model)
        self.target_layers = target_layers
        self.reshape_transform = reshape_transform

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Maps:
        """Maps of the images, as of any method of the library.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            targets: one callable an image; None: each image's best-scoring class.
            aug_smooth, eigen_smooth: must be False.

        Returns:
            `(B, H, W)`, float32, each map scaled to [0, 1].

        Raises:
            TypeError, ValueError: input, targets or outputs that can't work.
        """
        if aug_smooth or eigen_smooth:
            raise ValueError(f"{type(self).__name__} has neither aug_smooth nor eigen_smooth: leave them out")
        images = check_images(input_tensor, model_device(self.model, input_tensor))
        check_targets(targets, len(images))
        with eval_mode(self.model), own_inputs(self.model), torch.inference_mode(False), torch.enable_grad():
            if images.is_inference():  # can't take part in a graph; its copy can
                images = images.clone()
            if targets is None:
                with torch.no_grad():
                    targets = predicted_targets(check_outputs(self.model(images), len(images)))
            maps = torch.nan_to_num(self.saliency(images, targets).detach().float()).cpu().numpy()
        return np.stack([min_max_normalize(one) for one in maps])

    @property
    def device(self) -> torch.device:
        """Where the model is, which some of the library's meta-methods ask."""
        return model_device(self.model, torch.empty(0))

    @abstractmethod
    def saliency(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """Maps before they are scaled to [0, 1]: `(B, H, W)` of the images' size, in any unit.

        Args:
            images: `(B, C, H, W)`, on the model's device; the model is in evaluation mode, gradients are enabled.
            targets: one an image.
        """

    def __enter__(self) -> Attribution:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """Nothing is held between calls."""


class LayerAttribution(Attribution):
    """A method that looks at layers. A subclass makes their maps in `layer_saliency`.

    Args:
        model, target_layers, reshape_transform: as in the library; several layers give the mean of their maps, each
            scaled to [0, 1].

    Raises:
        TypeError, ValueError: layers that are not modules of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        check_target_layers(self.model, target_layers)
        self.activations_and_grads = Capture(self.model, target_layers, reshape_transform)

    def saliency(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """The layers' maps on the images' canvas, enlarged bilinearly and put together: `(B, H, W)`."""
        size = images.shape[2:]
        try:
            maps = self.layer_saliency(images, targets)
        finally:
            self.activations_and_grads.clear()
        enlarged = [F.interpolate(one[:, None], size=size, mode="bilinear", align_corners=False) for one in maps]
        return enlarged[0][:, 0] if len(enlarged) == 1 else self.combined(torch.cat(enlarged, dim=1))

    @abstractmethod
    def layer_saliency(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """One `(B, h, w)` tensor a target layer, in any unit; arguments as in `saliency`."""

    def combined(self, maps: Tensor) -> Tensor:
        """The maps of several layers `(B, layers, H, W)` as one: the mean of the maps, each scaled to [0, 1]."""
        low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
        return torch.nan_to_num((maps - low) / (high - low)).mean(dim=1)

    def activations_and_gradients(self, images: Tensor, targets: Sequence[Target]) -> tuple[list[Tensor], list[Tensor]]:
        """Activations of the target layers and the gradients of the targets' scores: `(B, C, h, w)`, float32, each.

        Raises:
            TypeError, ValueError: outputs or targets that can't work.
        """
        outputs = check_outputs(self.activations_and_grads(images), len(images))
        return self.activations_and_grads.activations_and_gradients(total_score(targets, outputs))
