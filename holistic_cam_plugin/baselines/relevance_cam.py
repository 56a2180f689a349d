r"""Relevance-CAM: channels are weighted by the relevance that is propagated from the target down to the layer.

$$M = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \qquad \alpha_k = \frac{1}{hw} \sum_{ij} R_{kij}$$

where $A_k$ are the activations of the target layer and $R$ the relevance of its output by contrastive layer-wise
relevance propagation (LRP). The propagation starts at the model's outputs with 1 at the target class and -1 / (N - 1)
at each of the N - 1 others, and follows the z+ rule: every neuron distributes its relevance in proportion to the
positive contributions of its inputs, without biases.

The paper starts with the target's logit instead of 1. Since propagation is linear, the maps are the same for every
positive logit; starting with 1 makes them independent of the logits' arbitrary zero.

Paper: Lee et al., "Relevance-CAM: Your Model Already Knows Where to Look", CVPR 2021. The rules come from zennit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor, nn

from holistic_cam_plugin.checks import check_images
from holistic_cam_plugin.passes.capture import Capture, check_target_layers
from holistic_cam_plugin.passes.model_state import copy_inputs, eval_mode, keep_parameters, unwrap_model
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, check_targets, predict_targets, total_score

try:
    from zennit.composites import LayerMapComposite
    from zennit.layer import Sum
    from zennit.rules import Norm, Pass, ZPlus
    from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer
    from zennit.types import Activation, AvgPool, BatchNorm, Linear
except ImportError as error:
    raise ImportError(
        'Relevance-CAM needs zennit: pip install "holistic-cam-plugin[relevance]"', name=error.name
    ) from error

__all__ = ["RelevanceCAM", "contrastive_relevance", "propagate_relevance"]

Maps = NDArray[np.float32]


class RelevanceCAM(BaseCAM):
    """Relevance-CAM, for torchvision's ResNet, VGG and SqueezeNet families.

    Other models work if they consist of linear, convolution, BatchNorm, pooling and ReLU-like modules and of branches
    that are concatenated; branches that are added are supported in torchvision's ResNet blocks only. The model, its
    gradients, training flags and hooks are left unchanged, also after an exception.

    Args:
        model, target_layers, reshape_transform, options: as in pytorch-grad-cam.

    Attributes:
        outputs: the model's outputs in the last call, detached.

    Raises:
        TypeError, ValueError: `target_layers` is not a list of modules of the model.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> RelevanceCAM(model, target_layers=[model[1]])(torch.rand(2, 3, 32, 32)).shape
        (2, 32, 32)
    """

    activations_and_grads: Any  # replaced by a Capture

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> None:
        model = unwrap_model(model)
        check_target_layers(model, target_layers)
        self.outputs: Tensor | None = None
        with eval_mode(model):  # BaseCAM does not restore the training flags
            super().__init__(model, list(target_layers), reshape_transform, **options)
        # BaseCAM's hooks would see every forward pass of the model; Capture has none between calls.
        self.activations_and_grads.release()
        self.activations_and_grads = Capture(model, self.target_layers, reshape_transform)

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Maps:
        """Compute the maps of images.

        Args:
            input_tensor: preprocessed images, `(B, C, H, W)`, floating point, on any device.
            targets: one callable per image; None: the predicted classes of the original images.
            aug_smooth, eigen_smooth: as in pytorch-grad-cam.

        Returns:
            `(B, H, W)`, float32, in [0, 1].

        Raises:
            TypeError, ValueError: the images, the targets or the model's outputs are invalid.
        """
        images = check_images(input_tensor, self.device)
        if not aug_smooth:
            return self.forward(images, targets, eigen_smooth)
        if targets is None:
            with eval_mode(self.model), copy_inputs(self.model), torch.no_grad():
                targets = predict_targets(check_outputs(self.model(images), len(images)))
        maps: Maps = self.forward_augmentation_smoothing(images, targets, eigen_smooth)
        return maps

    def forward(
        self, input_tensor: Tensor, targets: Sequence[Target] | None = None, eigen_smooth: bool = False
    ) -> Maps:
        """`__call__` without augmentations."""
        maps: Maps = self.aggregate_multi_layers(self.compute_cam_per_layer(input_tensor, targets, eigen_smooth))
        return maps

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: Sequence[Target] | None, eigen_smooth: bool = False
    ) -> list[Maps]:
        """Compute one `(B, 1, H, W)` array per target layer, float32, each map scaled to [0, 1]."""
        images = check_images(input_tensor, self.device)
        check_targets(targets, len(images))
        self.outputs, activations, relevances = propagate_relevance(self.activations_and_grads, images, targets)
        maps = []
        for layer, activation, relevance in zip(self.target_layers, activations, relevances, strict=True):
            arrays = activation.cpu().numpy(), relevance.cpu().numpy()
            cam = np.maximum(self.get_cam_image(images, layer, targets, *arrays, eigen_smooth), 0)
            # `scale_cam_image` adds 1e-7 to the peak, and mean relevances may be as small.
            peak = cam.max(axis=(1, 2), keepdims=True)
            cam = np.divide(cam, peak, out=np.zeros_like(cam), where=peak > 0)
            maps.append(scale_cam_image(cam, self.get_target_width_height(images))[:, None])
        return maps

    def get_cam_weights(
        self, input_tensor: Tensor, target_layer: nn.Module, targets: Any, activations: Maps, grads: Maps
    ) -> Maps:
        """Average the relevance, passed as `grads`, over the positions: one weight per channel, `(B, C)`."""
        weights: Maps = grads.mean(axis=(2, 3))
        return weights

    def __exit__(self, *_: object) -> None:  # BaseCAM swallows IndexError
        self.activations_and_grads.release()

    def __del__(self) -> None:
        """There is nothing to release."""


def contrastive_relevance(choice: Tensor) -> Tensor:
    """Relevance of the outputs at which the propagation starts: each share minus the mean of the other shares.

    Args:
        choice: gradient of the target's score with respect to the outputs, one row per image; for a class, 1 at the
            class and 0 elsewhere.

    Returns:
        The same shape; for a class, 1 at the class and -1 / (N - 1) elsewhere. A single output is returned as it is.

    Example:
        >>> contrastive_relevance(torch.tensor([[0.0, 1.0, 0.0]]))
        tensor([[-0.5000,  1.0000, -0.5000]])
    """
    rows = choice.flatten(start_dim=1)
    if rows.shape[1] == 1:
        return choice
    others = (rows.sum(dim=1, keepdim=True) - rows) / (rows.shape[1] - 1)
    return (rows - others).view_as(choice)


def propagate_relevance(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Target] | None = None,
    start: Callable[[Tensor], Tensor] = contrastive_relevance,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Propagate relevance from the targets to the target layers.

    Args:
        capture: of the model and its target layers.
        images: `(B, C, H, W)`, on the model's device.
        targets: one callable per image; None: the predicted classes.
        start: maps the gradient of the targets' scores with respect to the outputs to the outputs' relevance. With the
            identity, LRP without contrast, the relevance of every layer sums to 1.

    Returns:
        The outputs, detached, and one `(B, C, h, w)` tensor of activations and of relevances per target layer.

    Raises:
        TypeError, ValueError: the targets or the outputs are invalid.
    """
    with torch.inference_mode(False), keep_parameters(capture.model), _build_rules().context(capture.model):
        try:
            outputs = check_outputs(capture(images), len(images))
            targets = predict_targets(outputs) if targets is None else targets
            with torch.enable_grad():
                leaf = outputs.detach().requires_grad_()
                (choice,) = torch.autograd.grad(total_score(targets, leaf), leaf)
                # The gradient of this sum with respect to the outputs is the relevance at which the rules start.
                relevance = (outputs * start(choice)).sum()
            activations, relevances = capture.activations_and_gradients(relevance)
        finally:
            capture.clear()
    return outputs.detach(), activations, relevances


def _build_rules() -> Any:
    """The paper's rules: z+ without biases; BatchNorm is passed through, not merged into the convolution."""
    return LayerMapComposite(
        layer_map=[
            (Activation, Pass()),
            (BatchNorm, Pass()),
            (AvgPool, Norm()),
            (Sum, Norm()),
            (Linear, ZPlus(zero_params="bias")),
        ],
        # They replace the addition of a ResNet block by a module that a rule applies to.
        canonizers=[ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()],
    )
