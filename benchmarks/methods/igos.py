r"""I-GOS: a mask that deletes the evidence for the target, found along integrated gradients.

$$\min_M F(M) = f_c(\Phi(M)) + \lambda_1 \overline{|1 - M|} + \lambda_2 \overline{|\nabla M|^2}, \qquad
d = \frac1S \sum_{s=1}^S \nabla_M f_c\big(\Phi(\tfrac sS M) + n_s\big) + \nabla_M (F - f_c)$$

where $\Phi$ keeps the image where the mask M is 1 and blurs it strongly where M is 0, $n_s$ is Gaussian noise and bars
are means over the mask's cells. The direction d integrates over the path to the fully blurred image, as the gradient at
the image is saturated. Each step is the longest of a backtracking line search that lowers F enough. The map is 1 - M.

Paper: Qi, Khorram and Li, "Visualizing Deep Networks by Optimizing with Integrated Gradients", AAAI 2020, with the
values of the authors' code for a mask of 28 x 28 cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.methods.perturbation import Perturbation, blur, enlarge, perturb, total_variation
from holistic_cam_plugin.checks import check_integer, check_positive_integer
from holistic_cam_plugin.metrics.scoring import Score, class_probability
from holistic_cam_plugin.passes.targets import Target

__all__ = ["IGOS"]

_SPARSITY = 1.0  # lambda_1
_SMOOTHNESS = 20.0  # lambda_2
_NOISE = 0.2  # standard deviation, in units of the preprocessed image
# Standard deviation and window in pixels at 224 px.
_IMAGE_BLUR = (50, 51)
# Line search: longest and shortest step, factor that shortens a step, and Armijo's constant.
_LONGEST, _SHORTEST, _SHORTER, _ENOUGH = 200.0, 1e-5, 0.2, 1e-4


class IGOS(Perturbation):
    """I-GOS (Qi, Khorram and Li, AAAI 2020), deletion with a strongly blurred image.

    The authors' code lowers lambda_1 halfway if the score has not changed by then; this is not implemented.

    Args:
        model, target_layers, reshape_transform, score: as in `Perturbation`; no layer is used.
        iterations: number of steps of the descent.
        path_steps: S, number of points of the path that the gradient is integrated over, in one batch.
        mask_size: number of cells of the mask along each side.
        seed: seed of the noise.

    Raises:
        TypeError, ValueError: a count is below 1, or the seed is not an integer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
        *,
        iterations: int = 15,
        path_steps: int = 20,
        mask_size: int = 28,
        seed: int = 0,
        score: Score = class_probability,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, score=score)
        for name, value in {"iterations": iterations, "path_steps": path_steps, "mask_size": mask_size}.items():
            check_positive_integer(name, value)
        self.iterations = iterations
        self.path_steps = path_steps
        self.mask_size = mask_size
        check_integer("seed", seed)
        self.seed = int(seed)

    def image_saliency(self, image: Tensor, target: Target) -> Tensor:
        """1 - M, `(H, W)` in [0, 1], of one image `(1, C, H, W)`."""
        generator = torch.Generator().manual_seed(self.seed)
        baseline = blur(image, *_IMAGE_BLUR)

        def loss(mask: Tensor) -> float:
            copy = perturb(image, baseline, enlarge(mask, image.shape[2:]))
            return float(self.scores(copy, target).sum() + _compute_penalty(mask))

        mask = torch.ones(1, 1, self.mask_size, self.mask_size, device=image.device)
        for _ in range(self.iterations):
            mask = _search_line(loss, mask, self._find_direction(image, baseline, mask, target, generator))
        return 1 - enlarge(mask, image.shape[2:])[0, 0]

    def _find_direction(
        self, image: Tensor, baseline: Tensor, mask: Tensor, target: Target, generator: torch.Generator
    ) -> Tensor:
        """Compute d, the integrated gradient of the score plus the gradient of the penalty, in the mask's shape."""
        mask = mask.requires_grad_()
        path = torch.arange(1, self.path_steps + 1, device=image.device).view(-1, 1, 1, 1) / self.path_steps
        copies = perturb(image, baseline, path * enlarge(mask, image.shape[2:]))
        noise = _NOISE * torch.randn(copies.shape, generator=generator)
        total = self.scores(copies + noise.to(copies), target).mean() + _compute_penalty(mask)
        (direction,) = torch.autograd.grad(total, mask)
        return direction


def _compute_penalty(mask: Tensor) -> Tensor:
    variation = sum(part.mean() for part in total_variation(mask, beta=2))
    return _SPARSITY * (1 - mask).abs().mean() + _SMOOTHNESS * variation


@torch.no_grad()
def _search_line(loss: Callable[[Tensor], float], mask: Tensor, direction: Tensor) -> Tensor:
    """Take the longest step against `direction` that lowers the loss enough, or the shortest one."""
    before, slope, step = loss(mask), float(direction.square().sum()), _LONGEST
    while True:
        moved = (mask - step * direction).clamp(0, 1)
        if loss(moved) <= before - _ENOUGH * step * slope or step < _SHORTEST:
            return moved
        step *= _SHORTER
