r"""CAM: the classifier's own weights weigh the channels that it averages.

$$M_c(x, y) = \sum_k w_k^c f_k(x, y)$$

where the score of class c is $\sum_k w_k^c$ times the mean of $f_k$ over the positions, plus a bias.

Paper: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.baselines.attribution import LayerAttribution
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, total_score

__all__ = ["CAM"]

# Of the largest score: how far the scores may be from those of a head of the right form.
_TOLERANCE = 1e-3


class CAM(LayerAttribution):
    """CAM (Zhou et al., CVPR 2016), for nets that end in global average pooling and a linear layer.

    The target layer is the one that is averaged, such as a ResNet's `layer4`. Nets that classify every position with a
    1 x 1 convolution and average then, with or without a ReLU in between, have the form as well: of a SqueezeNet it is
    `features.12`. Cut off at 0, the map is Grad-CAM's in this layer up to scaling (Selvaraju et al., ICCV 2017).

    Args:
        model, target_layers, reshape_transform: as in the library.

    Raises:
        TypeError, ValueError: layers that are not modules of the model; when called, a net of another form.
    """

    def layer_saliency(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """M_c of eq. 2, signed, one `(B, h, w)` tensor a layer."""
        outputs = check_outputs(self.activations_and_grads(images), len(images)).detach().float()
        leaf = outputs.clone().requires_grad_()
        # For the score of a class, 1 at the class and 0 elsewhere.
        (choice,) = torch.autograd.grad(total_score(targets, leaf), leaf)
        return [
            torch.einsum("bkhw,bk->bhw", activations, choice @ _class_weights(self.model, activations, outputs))
            for activations in self.activations_and_grads.activations
        ]


def _class_weights(model: nn.Module, activations: Tensor, outputs: Tensor) -> Tensor:
    """w, `(classes, C)`: of the module that makes the outputs `(B, classes)` of the activations `(B, C, h, w)`.

    Raises:
        ValueError: there is none.
    """
    modules: list[Any] = list(model.modules())
    for module in reversed(modules):
        if not _is_1x1(module, activations.shape[1]):
            continue
        weights: Tensor = module.weight.detach().flatten(start_dim=1).float()
        bias = None if module.bias is None else module.bias.detach().float()
        positions = F.conv2d(activations, weights[..., None, None], bias)
        if any(_equal(some.mean(dim=(2, 3)), outputs) for some in (positions, positions.relu())):
            return weights
    raise ValueError(
        "CAM needs a net that averages the target layer over its positions and classifies with one linear layer, or "
        "one 1x1 convolution before the average; this target layer is not read in this way: take the net's last "
        "convolutional layer, such as a ResNet's layer4, or Grad-CAM, which fits every net"
    )


def _is_1x1(module: Any, channels: int) -> bool:
    """Whether this is a linear layer or a 1 x 1 convolution that reads so many channels."""
    if isinstance(module, nn.Linear):
        return module.in_features == channels
    return isinstance(module, nn.Conv2d) and module.weight.shape[1:] == (channels, 1, 1)


def _equal(scores: Tensor, outputs: Tensor) -> bool:
    return scores.shape == outputs.shape and bool((scores - outputs).abs().max() <= _TOLERANCE * outputs.abs().max())
