"""What methods share that perturb the image and look at the score: they see the model's outputs and no layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.method.low_pass_wrap import kernel_size
from holistic_cam_plugin.metrics.scoring import Score, class_probability
from holistic_cam_plugin.passes.outputs import check_outputs
from holistic_cam_plugin.passes.targets import Target, target_score

__all__ = ["Perturbation", "blurred", "enlarged", "perturbed", "scores_of_copies", "total_variation"]


class Perturbation(Attribution):
    """A method that looks at no layer. A subclass makes one image's map in `image_saliency`.

    Args:
        model, target_layers, reshape_transform: as in the library; only the model is used.
        score: maps the model's outputs to what the targets see; by default the softmax of class scores.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
        *,
        score: Score = class_probability,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)
        self.score = score

    def saliency(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """The maps `(B, H, W)`, one image at a time: an image's map does not depend on its batch."""
        return torch.stack([self.image_saliency(*pair) for pair in zip(images.split(1), targets, strict=True)])

    @abstractmethod
    def image_saliency(self, image: Tensor, target: Target) -> Tensor:
        """The map `(H, W)` of one image `(1, C, H, W)`, in any unit."""

    def scores(self, copies: Tensor, target: Target) -> Tensor:
        """The target's score of every perturbed copy; see `scores_of_copies`."""
        return scores_of_copies(self.model, copies, target, self.score)


def scores_of_copies(model: nn.Module, copies: Tensor, target: Target, score: Score) -> Tensor:
    """The target's score of every copy `(N, C, H, W)` of an image: `(N,)`, with a graph where gradients are enabled.

    Raises:
        TypeError, ValueError: outputs that `score` can't take, or a target that gives more than one value.
    """
    outputs = score(check_outputs(model(copies), len(copies)))
    return torch.stack([target_score(target, output) for output in outputs])


def perturbed(image: Tensor, baseline: Tensor, masks: Tensor) -> Tensor:
    """The image where a mask is 1, the baseline where it is 0: x m + b (1 - m).

    Args:
        image, baseline: `(1, C, H, W)`.
        masks: `(N, 1, H, W)` in [0, 1].

    Returns:
        `(N, C, H, W)` in the image's dtype.
    """
    return torch.lerp(baseline, image, masks.to(image.dtype))


def blurred(images: Tensor, sigma: float, ksize: int) -> Tensor:
    """Gaussian blur, borders reflected.

    Args:
        images: `(B, C, H, W)`.
        sigma, ksize: standard deviation and side of the window in pixels of an image with a shorter side of 224 px; of
            others in proportion.
    """
    shorter = min(images.shape[-2:])
    side, deviation = kernel_size(shorter, ksize), sigma * shorter / 224
    result: Tensor = gaussian_blur(images, [side, side], [deviation, deviation])
    return result


def enlarged(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks `(N, 1, h, w)` at `size`, bilinearly."""
    return F.interpolate(masks, size=tuple(size), mode="bilinear", align_corners=False)


def total_variation(mask: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    r"""$|\partial_y m|^\beta$ and $|\partial_x m|^\beta$ of a mask `(N, 1, h, w)`, between neighbouring cells."""
    return mask.diff(dim=2).abs() ** beta, mask.diff(dim=3).abs() ** beta
