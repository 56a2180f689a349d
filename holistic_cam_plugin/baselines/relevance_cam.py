r"""Relevance-CAM: relevance of the target, propagated down to the layer, weighs the channels of the activations.

$$M = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \qquad \alpha_k = \frac{1}{hw} \sum_{ij} R_{kij}$$

where $R$ is the relevance that contrastive layer-wise relevance propagation (LRP) gives the layer's output. It starts
at the model's outputs with 1 at the target class and -1 / (N - 1) at each of the N - 1 others, and follows the z+ rule:
every neuron passes its relevance on in proportion to the positive contributions that it received, biases left out.

The paper starts with the target's logit in the place of 1. Propagation is linear in what it starts with, so the maps
are the same for every positive logit; starting with 1, they don't depend on the logits' arbitrary zero.

Paper: Lee et al., "Relevance-CAM: Your Model Already Knows Where to Look", CVPR 2021. The rules are zennit's.
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

from holistic_cam_plugin.method.pyramid import check_images
from holistic_cam_plugin.passes.capture import Capture, check_target_layers
from holistic_cam_plugin.passes.modes import eval_mode, own_inputs, unwrapped
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, check_targets, predicted_targets, total_score

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

__all__ = ["RelevanceCAM", "contrastive_relevance", "layer_relevance"]

Maps = NDArray[np.float32]


class RelevanceCAM(BaseCAM):
    """Relevance-CAM as a class of the library, for torchvision's ResNet, VGG and SqueezeNet families.

    Any model of linear, convolution, BatchNorm, pooling and ReLU-like modules works, branches that are concatenated
    included. Branches that are added need a rule of their own, which is there for torchvision's ResNet blocks alone.
    The model, its gradients, flags, modes and hooks are as before after every call, also after an exception.

    Args:
        model, target_layers, reshape_transform, compute_input_gradient, uses_gradients, tta_transforms, detach: as in
            the library; only the first three have an effect.

    Attributes:
        outputs: the model's output of the last call, detached.

    Raises:
        TypeError, ValueError: layers that are not modules of the model.
    """

    activations_and_grads: Any  # the library's recorder at first, a Capture from then on

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool = True,
        tta_transforms: Any = None,
        detach: bool = True,
    ) -> None:
        model = unwrapped(model)
        check_target_layers(model, target_layers)
        self.outputs: Tensor | None = None
        with eval_mode(model):  # the library's constructor leaves the model in evaluation mode
            super().__init__(
                model,
                list(target_layers),
                reshape_transform,
                compute_input_gradient,
                uses_gradients,
                tta_transforms,
                detach,
            )
        # The library's recorder has hooks that see every forward pass of the model; this one has none between calls.
        self.activations_and_grads.release()
        self.activations_and_grads = Capture(model, self.target_layers, reshape_transform)

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
            targets: one callable an image; None: each image's best-scoring class, decided on the untouched image.
            aug_smooth: mean over the library's test-time augmentations.
            eigen_smooth: first principal component of the weighted activations instead of their sum.

        Returns:
            `(B, H, W)`, float32, in [0, 1].

        Raises:
            TypeError, ValueError: input, targets or outputs that can't work.
        """
        images = check_images(input_tensor, self.device)
        if not aug_smooth:
            return self.forward(images, targets, eigen_smooth)
        if targets is None:
            with eval_mode(self.model), own_inputs(self.model), torch.no_grad():
                targets = predicted_targets(check_outputs(self.model(images), len(images)))
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
        """The map of every target layer: one `(B, 1, H, W)` array a layer, float32, each map scaled to [0, 1]."""
        images = check_images(input_tensor, self.device)
        check_targets(targets, len(images))
        self.outputs, activations, relevances = layer_relevance(self.activations_and_grads, images, targets)
        maps = []
        for layer, activation, relevance in zip(self.target_layers, activations, relevances, strict=True):
            arrays = activation.cpu().numpy(), relevance.cpu().numpy()
            cam = np.maximum(self.get_cam_image(images, layer, targets, *arrays, eigen_smooth), 0)
            # The library's scaling adds 1e-7 to a map's peak, and a mean of relevance may be no larger than that.
            peak = cam.max(axis=(1, 2), keepdims=True)
            cam = np.divide(cam, peak, out=np.zeros_like(cam), where=peak > 0)
            maps.append(scale_cam_image(cam, self.get_target_width_height(images))[:, None])
        return maps

    def get_cam_weights(
        self, input_tensor: Tensor, target_layer: nn.Module, targets: Any, activations: Maps, grads: Maps
    ) -> Maps:
        """One weight a channel, `(B, C)`: the mean over the positions of what stands in the gradients' place."""
        weights: Maps = grads.mean(axis=(2, 3))
        return weights

    def __exit__(self, *_: object) -> None:  # errors propagate, unlike in the library
        self.activations_and_grads.release()

    def __del__(self) -> None:
        """Nothing is held between calls."""


def contrastive_relevance(choice: Tensor) -> Tensor:
    """What the propagation starts with: the target's share, minus that share spread evenly over the other outputs.

    Args:
        choice: gradient of the target's score with respect to the output, one row an image; for a class, 1 at the class
            and 0 elsewhere.

    Returns:
        The same shape; for a class, 1 there and -1 / (N - 1) elsewhere. A single output has nothing to contrast with.
    """
    rows = choice.flatten(start_dim=1)
    if rows.shape[1] == 1:
        return choice
    others = (rows.sum(dim=1, keepdim=True) - rows) / (rows.shape[1] - 1)
    return (rows - others).view_as(choice)


def layer_relevance(
    capture: Capture,
    images: Tensor,
    targets: Sequence[Target] | None = None,
    start: Callable[[Tensor], Tensor] = contrastive_relevance,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Relevance of the outputs of the target layers.

    Args:
        capture: of the model and its target layers.
        images: `(B, C, H, W)`, on the model's device.
        targets: one callable an image; None: the best-scoring class.
        start: maps the gradient of the targets' scores with respect to the output to the relevance of the output. The
            identity gives LRP without contrast, whose relevance sums to 1 in every layer (as far as any positive
            contributions arrive).

    Returns:
        The outputs, detached, and activations and relevances, one `(B, C, h, w)` tensor of each a target layer.

    Raises:
        TypeError, ValueError: targets or outputs that can't work.
    """
    with torch.inference_mode(False), _relevance_rules().context(capture.model):
        try:
            outputs = check_outputs(capture(images), len(images))
            targets = predicted_targets(outputs) if targets is None else targets
            with torch.enable_grad():
                leaf = outputs.detach().requires_grad_()
                (choice,) = torch.autograd.grad(total_score(targets, leaf), leaf)
                # The gradient of this sum with respect to the outputs is the relevance that the rules start with.
                relevance = (outputs * start(choice)).sum()
            activations, relevances = capture.activations_and_gradients(relevance)
        finally:
            capture.clear()
    return outputs.detach(), activations, relevances


def _relevance_rules() -> Any:
    """The published method's rules: z+ without biases, and BatchNorm passed through, not merged into a convolution."""
    return LayerMapComposite(
        layer_map=[
            (Activation, Pass()),
            (BatchNorm, Pass()),
            (AvgPool, Norm()),
            (Sum, Norm()),
            (Linear, ZPlus(zero_params="bias")),
        ],
        # They put a module in the place of a ResNet block's addition, for a rule to apply to.
        canonizers=[ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()],
    )
