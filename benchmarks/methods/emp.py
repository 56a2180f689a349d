r"""EMP: the smallest and smoothest region whose blurring deletes the evidence for the target.

$$\min_{m \in [0, 1]^\Lambda} \lambda_1 \lVert 1 - m \rVert_1 + \lambda_2 \sum_u \lVert \nabla m(u) \rVert_\beta^\beta
+ \mathbb{E}_\tau \big[ f_c(\Phi(x_0(\cdot - \tau), m)) \big]$$

where $\Phi$ keeps the image where the mask m is 1 and blurs it where m is 0. The map is 1 - m.

Paper: Fong and Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", ICCV 2017,
section 4, with the values of section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.perturbation import Perturbation, blur, enlarge, perturb, total_variation
from holistic_cam_plugin.checks import check_integer, check_positive_integer
from holistic_cam_plugin.metrics.scoring import Score, class_probability
from holistic_cam_plugin.passes.targets import Target

__all__ = ["EMP"]

_LEARNING_RATE = 0.1
_SPARSITY = 1e-4  # lambda_1
_SMOOTHNESS = 1e-2  # lambda_2
_BETA = 3
_JITTER = 4  # number of shifts in pixels, down and across, that tau is drawn from
_SUPPRESSED = 0.99  # share of the score that the initial mask removes
# Standard deviation and window (three standard deviations to each side) in pixels at 224 px.
_IMAGE_BLUR = (10, 61)
_MASK_BLUR = (5, 31)


class EMP(Perturbation):
    """Meaningful perturbation (Fong and Vedaldi, ICCV 2017), the deletion game with a blurred image.

    Adam starts from the smallest centred disc that removes 99 % of the score that blurring the whole image removes.
    Lengths in pixels are the paper's at 224 px, in proportion to the shorter side. Shifted images repeat the border.

    Args:
        model, target_layers, reshape_transform, score: as in `Perturbation`; no layer is used.
        iterations: number of steps of Adam.
        mask_size: number of cells of the mask along each side.
        seed: seed of the shifts.

    Raises:
        TypeError, ValueError: a count is below 1, or the seed is not an integer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
        *,
        iterations: int = 300,
        mask_size: int = 28,
        seed: int = 0,
        score: Score = class_probability,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, score=score)
        check_positive_integer("iterations", iterations)
        check_positive_integer("mask_size", mask_size)
        self.iterations = iterations
        self.mask_size = mask_size
        check_integer("seed", seed)
        self.seed = int(seed)

    def image_saliency(self, image: Tensor, target: Target) -> Tensor:
        """1 - m, `(H, W)` in [0, 1], of one image `(1, C, H, W)`."""
        generator = torch.Generator().manual_seed(self.seed)
        baseline = blur(image, *_IMAGE_BLUR)
        wide_image, wide_baseline = (_pad(one) for one in (image, baseline))
        mask = self._first_mask(image, baseline, target).requires_grad_()
        optimizer = torch.optim.Adam([mask], lr=_LEARNING_RATE)
        for _ in range(self.iterations):
            shift = torch.randint(_JITTER, (2,), generator=generator).tolist()
            shifted, blank = (_crop(wide, shift, image.shape[2:]) for wide in (wide_image, wide_baseline))
            copy = perturb(shifted, blank, _enlarge(mask, image.shape[2:]))
            variation = sum(part.sum() for part in total_variation(mask, _BETA))
            loss = self.scores(copy, target).sum() + _SPARSITY * (1 - mask).abs().sum() + _SMOOTHNESS * variation
            (mask.grad,) = torch.autograd.grad(loss, mask)
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        return 1 - enlarge(mask.detach(), image.shape[2:])[0, 0]

    @torch.no_grad()
    def _first_mask(self, image: Tensor, baseline: Tensor, target: Target) -> Tensor:
        """Find the smallest centred disc that suppresses the score, `(1, 1, cells, cells)`, 0 inside."""
        offsets = torch.arange(self.mask_size, device=image.device) + 0.5 - self.mask_size / 2
        distances = torch.hypot(offsets[:, None], offsets)
        radii = torch.arange(1, self.mask_size + 1, device=image.device)  # the last disc covers the corners
        discs = (distances > radii[:, None, None]).float()[:, None]
        full, least = self.scores(torch.cat([image, baseline]), target)
        copies = (perturb(image, baseline, _enlarge(disc[None], image.shape[2:])) for disc in discs)
        scores = torch.cat([self.scores(copy, target) for copy in copies])
        return discs[[int((full - scores >= _SUPPRESSED * (full - least)).int().argmax())]]


def _enlarge(mask: Tensor, size: Sequence[int]) -> Tensor:
    return blur(enlarge(mask, size), *_MASK_BLUR)


def _pad(image: Tensor) -> Tensor:
    return F.pad(image, [_JITTER // 2] * 4, mode="replicate")


def _crop(wide: Tensor, shift: Sequence[int], size: Sequence[int]) -> Tensor:
    return wide[..., shift[0] : shift[0] + size[0], shift[1] : shift[1] + size[1]]
