r"""MSG-CAM: Group-CAM on activations and gradients that are fused over enlarged copies of the image.

1. The image goes through the model at several scales. Activations and gradients are brought to one grid and averaged
   over the scales: $\bar A$, $\bar G$.
2. Neighbouring channels form groups; each gives a mask,
   $M_g = \mathrm{ReLU}\big(\sum_{k \in g} w_k \bar A_k\big)$ with $w_k$ the mean of $\bar G_k$ over the positions, in
   which all but the strongest positions are set to 0.
3. The masks, enlarged and scaled to [0, 1], are weighted with the score that they keep in a blurred image $\tilde I$:

$$L = \mathrm{ReLU}\Big( \sum_g \big( f_c(I \odot M_g + \tilde I \odot (1 - M_g)) - f_c(\tilde I) \big) M_g \Big)$$

Papers: Xiang et al., "MSG-CAM: Multi-scale inputs make a better visual interpretation of CNN networks", ICME 2023, says
that it is Group-CAM with masks made of the fused feature maps and gradients of enlarged inputs. Steps 2 and 3 are Zhang
et al., "Group-CAM: Group Score-Weighted Visual Explanations for Deep Convolutional Networks", 2021, with its values.

Written from MSG-CAM's abstract, which gives no more details: the scales (1, 2 and 3 times the image), the grid (that of
the largest scale) and the fusion by the mean are this project's choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.baselines.attribution import LayerAttribution
from holistic_cam_plugin.baselines.perturbation import blurred, enlarged, perturbed, scores_of_copies
from holistic_cam_plugin.method.pyramid import check_positive_integer, pyramid_sizes, resize_image
from holistic_cam_plugin.metrics.scoring import Score, class_probability, is_number
from holistic_cam_plugin.passes.refusals import refusal_explained
from holistic_cam_plugin.passes.targets import Target

__all__ = ["MSGCAM", "group_masks"]

# Group-CAM's: share of a mask's positions that are set to 0; standard deviation and window in pixels at 224 px.
_CUT_OFF = 0.7
_IMAGE_BLUR = (50, 51)


class MSGCAM(LayerAttribution):
    """MSG-CAM (Xiang et al., ICME 2023), as far as it is described in public: see the module.

    Args:
        model, target_layers, reshape_transform: as in the library.
        scales: factors by which the image is enlarged.
        groups: of channels, each of which costs one pass of the masked image.
        score: maps the model's outputs to what the targets see when the masked images are scored.

    Raises:
        TypeError, ValueError: layers that are not modules of the model, a count below 1, or scales below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[..., Any] | None = None,
        *,
        scales: Sequence[float] = (1, 2, 3),
        groups: int = 32,
        score: Score = class_probability,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        check_positive_integer("groups", groups)
        if np.ndim(scales) != 1 or len(scales) == 0 or not all(is_number(s) and 1 <= s < math.inf for s in scales):
            raise ValueError(f"scales must be factors of at least 1, such as (1, 2, 3), got {scales!r}")
        self.scales = scales
        self.groups = groups
        self.score = score

    def layer_saliency(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """L, one `(B, H, W)` tensor a layer."""
        of_images = [self._layer_maps(*pair) for pair in zip(images.split(1), targets, strict=True)]
        return [torch.stack(maps) for maps in zip(*of_images, strict=True)]

    def _layer_maps(self, image: Tensor, target: Target) -> list[Tensor]:
        """L of one image `(1, C, H, W)`: `(H, W)` a layer."""
        height, width = image.shape[2:]
        activations, gradients = [], []  # [scale][layer]
        for size in pyramid_sizes(height, width, sizes=[int(min(height, width) * scale) for scale in self.scales]):
            with refusal_explained(size, (height, width)):
                records = self.activations_and_gradients(resize_image(image, size), [target])
            activations.append(records[0])
            gradients.append(records[1])
        fused = ([_fused(maps) for maps in zip(*of_scales, strict=True)] for of_scales in (activations, gradients))
        with torch.no_grad():
            return [self._weighted_masks(image, target, *pair) for pair in zip(*fused, strict=True)]

    def _weighted_masks(self, image: Tensor, target: Target, activations: Tensor, gradients: Tensor) -> Tensor:
        """L, `(H, W)`, of fused activations and gradients `(1, C, h, w)`."""
        masks = enlarged(group_masks(activations, gradients, self.groups), image.shape[2:])
        low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
        kept = (high > low).flatten()  # a group without evidence has no mask
        if not kept.any():
            return image.new_zeros(image.shape[2:])
        masks = ((masks - low) / (high - low))[kept]
        baseline = blurred(image, *_IMAGE_BLUR)
        copies = torch.cat([baseline, perturbed(image, baseline, masks)])
        scores = scores_of_copies(self.model, copies, target, self.score).float()
        return torch.einsum("g,ghw->hw", scores[1:] - scores[0], masks[:, 0]).relu()


def group_masks(activations: Tensor, gradients: Tensor, groups: int) -> Tensor:
    """Masks of groups of neighbouring channels, without their weaker positions.

    Args:
        activations, gradients: `(1, C, h, w)`.
        groups: at most so many.

    Returns:
        `(groups, 1, h, w)`, never negative.
    """
    weighted = activations * gradients.mean(dim=(2, 3), keepdim=True)
    masks = torch.cat([part.sum(dim=1, keepdim=True).relu() for part in weighted.chunk(groups, dim=1)])
    positions = masks.flatten(start_dim=1)
    weakest = max(1, round(_CUT_OFF * positions.shape[1]))
    return masks * (masks > positions.kthvalue(weakest).values.view(-1, 1, 1, 1))


def _fused(maps: Sequence[Tensor]) -> Tensor:
    """The mean of maps `(1, C, h, w)` on the largest of their grids."""
    grid = max((tuple(one.shape[2:]) for one in maps), key=lambda sides: sides[0] * sides[1])
    return torch.stack([F.interpolate(one, size=grid, mode="bilinear", align_corners=False) for one in maps]).mean(0)
