"""Base class and helpers of methods that perturb the image; they use the model's outputs and no layer."""

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

__all__ = ["Perturbation", "blur", "enlarge", "perturb", "score_target", "total_variation"]


class Perturbation(Attribution):
    """A method that uses no layer. Subclasses compute the map of one image in `image_saliency`.

    Args:
        model, target_layers, reshape_transform: as in pytorch-grad-cam; only the model is used.
        score: applied to the model's outputs before the targets; the softmax over classes by default.
    """

    needs_layers = False

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

    def compute_maps(self, images: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """Maps `(B, H, W)`, computed image by image, so that they do not depend on the batch."""
        return [torch.stack([self.image_saliency(*pair) for pair in zip(images.split(1), targets, strict=True)])]

    @abstractmethod
    def image_saliency(self, image: Tensor, target: Target) -> Tensor:
        """Map `(H, W)` of one image `(1, C, H, W)`, in any unit."""

    def scores(self, copies: Tensor, target: Target) -> Tensor:
        """The target's score for each perturbed copy; see `score_target`."""
        return score_target(self.model, copies, target, self.score)


def score_target(model: nn.Module, copies: Tensor, target: Target, score: Score) -> Tensor:
    """The target's score for each copy `(N, C, H, W)` of an image, `(N,)`, differentiable if gradients are enabled.

    Raises:
        TypeError, ValueError: `score` rejects the outputs, or the target returns more than one value.
    """
    outputs = score(check_outputs(model(copies), len(copies)))
    return torch.stack([target_score(target, output) for output in outputs])


def perturb(image: Tensor, baseline: Tensor, masks: Tensor) -> Tensor:
    """Blend the image, where a mask is 1, and the baseline, where it is 0: x m + b (1 - m).

    Args:
        image, baseline: `(1, C, H, W)`.
        masks: `(N, 1, H, W)` in [0, 1].

    Returns:
        `(N, C, H, W)` in the image's dtype.
    """
    return torch.lerp(baseline, image, masks.to(image.dtype))


def blur(images: Tensor, sigma: float, ksize: int) -> Tensor:
    """Gaussian blur with reflected borders.

    Args:
        images: `(B, C, H, W)`.
        sigma, ksize: standard deviation and side of the window in pixels for a shorter side of 224 px, scaled in
            proportion for other sizes.
    """
    shorter = min(images.shape[-2:])
    side, deviation = kernel_size(shorter, ksize), sigma * shorter / 224
    result: Tensor = gaussian_blur(images, [side, side], [deviation, deviation])
    return result


def enlarge(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Resize masks `(N, 1, h, w)` to `size`, bilinearly."""
    return F.interpolate(masks, size=tuple(size), mode="bilinear", align_corners=False)


def total_variation(mask: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    r"""$|\partial_y m|^\beta$ and $|\partial_x m|^\beta$ of a mask `(N, 1, h, w)`, between neighbouring cells."""
    return mask.diff(dim=2).abs() ** beta, mask.diff(dim=3).abs() ** beta
