r"""MSG-CAM: Group-CAM with activations and gradients fused over enlarged images.

1. The image passes through the model at several scales. Activations and gradients are resized to one grid and averaged
   over the scales: $\bar A$, $\bar G$.
2. Each group of neighbouring channels gives a mask $M_g = \mathrm{ReLU}\big(\sum_{k \in g} w_k \bar A_k\big)$, where
   $w_k$ is the mean of $\bar G_k$ over the positions. All but the strongest positions are set to 0.
3. The masks, enlarged and scaled to [0, 1], are weighted by the score that they keep in a blurred image $\tilde I$:

$$L = \mathrm{ReLU}\Big( \sum_g \big( f_c(I \odot M_g + \tilde I \odot (1 - M_g)) - f_c(\tilde I) \big) M_g \Big)$$

Papers: Xiang et al., "MSG-CAM: Multi-scale inputs make a better visual interpretation of CNN networks", ICME 2023, for
step 1; Zhang et al., "Group-CAM: Group Score-Weighted Visual Explanations for Deep Convolutional Networks", 2021, for
steps 2 and 3 and their values.

Only MSG-CAM's abstract was available. The scales (1, 2 and 3 times the image), the grid (that of the largest scale) and
the mean over the scales are choices of this project.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.perturbation import blur, enlarge, perturb, score_target
from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.checks import check_positive_integer, is_number
from holistic_cam_plugin.method.pyramid import pyramid_sizes, resize_image
from holistic_cam_plugin.metrics.scoring import Score, class_probability
from holistic_cam_plugin.passes.targets import Target

__all__ = ["MSGCAM", "group_masks"]

# Group-CAM's share of positions that are set to 0, and standard deviation and window in pixels at 224 px.
_CUT_OFF = 0.7
_IMAGE_BLUR = (50, 51)


class MSGCAM(Attribution):
    """MSG-CAM (Xiang et al., ICME 2023), after its abstract; see the module's docstring.

    Args:
        model, target_layers, reshape_transform: as in pytorch-grad-cam.
        scales: factors of the image's size.
        groups: number of groups of channels; each costs one forward pass.
        score: applied to the model's outputs of masked images before the targets.

    Raises:
        TypeError, ValueError: layers are not modules of the model, or a count or a scale is below 1.
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

    def compute_maps(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """L, `(B, H, W)` for each layer."""
        of_images = [self._explain_image(*pair) for pair in zip(images.split(1), targets, strict=True)]
        return [torch.stack(maps) for maps in zip(*of_images, strict=True)]

    def _explain_image(self, image: Tensor, target: Target) -> list[Tensor]:
        """L of one image `(1, C, H, W)`, `(H, W)` for each layer."""
        height, width = image.shape[2:]
        activations, gradients = [], []  # [scale][layer]
        for size in pyramid_sizes(height, width, sizes=[int(min(height, width) * scale) for scale in self.scales]):
            records = self.activations_and_gradients(resize_image(image, size), [target])
            activations.append(records[0])
            gradients.append(records[1])
        fused = ([_fuse(maps) for maps in zip(*of_scales, strict=True)] for of_scales in (activations, gradients))
        with torch.no_grad():
            return [self._weigh_masks(image, target, *pair) for pair in zip(*fused, strict=True)]

    def _weigh_masks(self, image: Tensor, target: Target, activations: Tensor, gradients: Tensor) -> Tensor:
        """L, `(H, W)`, from fused activations and gradients `(1, C, h, w)`."""
        masks = enlarge(group_masks(activations, gradients, self.groups), image.shape[2:])
        low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
        kept = (high > low).flatten()  # groups without evidence have no mask
        if not kept.any():
            return image.new_zeros(image.shape[2:])
        masks = ((masks - low) / (high - low))[kept]
        baseline = blur(image, *_IMAGE_BLUR)
        copies = torch.cat([baseline, perturb(image, baseline, masks)])
        scores = score_target(self.model, copies, target, self.score).float()
        return torch.einsum("g,ghw->hw", scores[1:] - scores[0], masks[:, 0]).relu()


def group_masks(activations: Tensor, gradients: Tensor, groups: int) -> Tensor:
    """Masks of groups of neighbouring channels, with weak positions set to 0.

    Args:
        activations, gradients: `(1, C, h, w)`.
        groups: largest number of groups.

    Returns:
        `(groups, 1, h, w)`, never negative.
    """
    weighted = activations * gradients.mean(dim=(2, 3), keepdim=True)
    masks = torch.cat([part.sum(dim=1, keepdim=True).relu() for part in weighted.chunk(groups, dim=1)])
    positions = masks.flatten(start_dim=1)
    weakest = max(1, round(_CUT_OFF * positions.shape[1]))
    return masks * (masks > positions.kthvalue(weakest).values.view(-1, 1, 1, 1))


def _fuse(maps: Sequence[Tensor]) -> Tensor:
    """Average maps `(1, C, h, w)` on the largest of their grids."""
    grid = max((tuple(one.shape[2:]) for one in maps), key=lambda sides: sides[0] * sides[1])
    return torch.stack([F.interpolate(one, size=grid, mode="bilinear", align_corners=False) for one in maps]).mean(0)
