r"""CAM: the weights of the classifier's linear layer, applied to the channels that it averages.

$$M_c(x, y) = \sum_k w_k^c f_k(x, y)$$

where $f_k$ are the activations of the target layer and the score of class c is $\sum_k w_k^c$ times the mean of $f_k$
over the positions, plus a bias.

Paper: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, total_score

__all__ = ["CAM"]

# Largest deviation of the scores from those of a suitable classifier, as a share of the largest score.
_TOLERANCE = 1e-3


class CAM(Attribution):
    """CAM (Zhou et al., CVPR 2016), for models that end in global average pooling and a linear layer.

    The target layer is the one that is averaged, such as `layer4` of a ResNet. Models that classify every position with
    a 1 x 1 convolution and average the scores, with or without a ReLU in between, are supported too: the target layer
    of a SqueezeNet is `features.12`. Except for negative values, the map equals Grad-CAM's of this layer up to scaling
    (Selvaraju et al., ICCV 2017).

    Args:
        model, target_layers, reshape_transform: as in pytorch-grad-cam.

    Raises:
        TypeError, ValueError: `target_layers` is not a list of modules of the model; when called, the model has another
            structure.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        >>> CAM(model, target_layers=[model[0]])(torch.rand(2, 3, 32, 32)).shape
        (2, 32, 32)
    """

    def compute_maps(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """M_c of eq. 2, signed, one `(B, h, w)` tensor per layer."""
        outputs = check_outputs(self.activations_and_grads(images), len(images)).detach().float()
        leaf = outputs.clone().requires_grad_()
        # The weights of the classes in the target's score: 1 for a class that is a target itself, 0 for the others.
        (choice,) = torch.autograd.grad(total_score(targets, leaf), leaf)
        return [
            torch.einsum("bkhw,bk->bhw", activations, choice @ _find_class_weights(self.model, activations, outputs))
            for activations in self.activations_and_grads.activations
        ]


def _find_class_weights(model: nn.Module, activations: Tensor, outputs: Tensor) -> Tensor:
    """Find the weights `(classes, C)` of the module that maps the activations `(B, C, h, w)` to the outputs.

    Raises:
        ValueError: there is no such module.
    """
    modules: list[Any] = list(model.modules())
    for module in reversed(modules):
        if not _is_1x1(module, activations.shape[1]):
            continue
        weights: Tensor = module.weight.detach().flatten(start_dim=1).float()
        bias = None if module.bias is None else module.bias.detach().float()
        positions = F.conv2d(activations, weights[..., None, None], bias)
        if any(_is_close(some.mean(dim=(2, 3)), outputs) for some in (positions, positions.relu())):
            return weights
    raise ValueError(
        "CAM needs a model that averages the target layer over its positions and classifies with one linear layer or "
        "one 1x1 convolution: choose the last convolutional layer, such as layer4 of a ResNet, or use Grad-CAM"
    )


def _is_1x1(module: Any, channels: int) -> bool:
    """Whether `module` is a linear layer or a 1 x 1 convolution with this number of input channels."""
    if isinstance(module, nn.Linear):
        return module.in_features == channels
    return isinstance(module, nn.Conv2d) and module.weight.shape[1:] == (channels, 1, 1)


def _is_close(scores: Tensor, outputs: Tensor) -> bool:
    return scores.shape == outputs.shape and bool((scores - outputs).abs().max() <= _TOLERANCE * outputs.abs().max())
