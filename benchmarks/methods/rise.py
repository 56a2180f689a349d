r"""RISE: the mean of random masks, weighted by the scores of the masked images.

$$S(\lambda) = \frac{1}{\mathbb{E}[M] \, N} \sum_{i=1}^N f(I \odot M_i) \, M_i(\lambda)$$

A mask is a grid of h x w cells, 1 with probability p and else 0, which is enlarged bilinearly to the size of (h + 1) x
(w + 1) cells of the image and cropped to the image's size at a random place within one cell.

Paper: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018,
section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.methods.perturbation import Perturbation, enlarge
from holistic_cam_plugin.checks import check_integer, check_positive_integer, is_number
from holistic_cam_plugin.metrics.scoring import Score, class_probability
from holistic_cam_plugin.passes.targets import Target

__all__ = ["RISE", "shift_masks"]


class RISE(Perturbation):
    """RISE (Petsiuk et al., BMVC 2018). Masked pixels of the preprocessed image are 0.

    Args:
        model, target_layers, reshape_transform, score: as in `Perturbation`; no layer is used.
        num_masks: N; 4000 for VGG-16 and 8000 for ResNet-50 in the paper.
        cells: h = w, number of cells of a mask along each side.
        probability: p, probability that a cell is kept.
        seed: seed of the masks, which are the same for all images.
        batch_size: number of masked copies per batch.

    Raises:
        TypeError, ValueError: a count is below 1, the probability is outside (0, 1], or the seed is not an integer.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] = (),
        reshape_transform: Callable[..., Any] | None = None,
        *,
        num_masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        seed: int = 0,
        batch_size: int = 64,
        score: Score = class_probability,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, score=score)
        for name, value in {"num_masks": num_masks, "cells": cells, "batch_size": batch_size}.items():
            check_positive_integer(name, value)
        if not is_number(probability) or not 0 < probability <= 1:
            raise ValueError(f"probability must be above 0 and at most 1, got {probability!r}")
        self.num_masks = num_masks
        self.cells = cells
        self.probability = float(probability)
        check_integer("seed", seed)
        self.seed = int(seed)
        self.batch_size = batch_size

    @torch.no_grad()
    def image_saliency(self, image: Tensor, target: Target) -> Tensor:
        """S, `(H, W)`, of one image `(1, C, H, W)`: the expected score if a pixel is kept."""
        # Drawn on the CPU and all at once, so that masks do not depend on the device and the batch size.
        generator = torch.Generator().manual_seed(self.seed)
        grids = (torch.rand(self.num_masks, 1, self.cells, self.cells, generator=generator) < self.probability).float()
        shifts = torch.rand(self.num_masks, 2, generator=generator)
        total = torch.zeros(image.shape[2:], device=image.device)
        for some in zip(grids.split(self.batch_size), shifts.split(self.batch_size), strict=True):
            masks = shift_masks(*some, image.shape[2:]).to(image.device)
            total += torch.einsum("n,nhw->hw", self.scores(image * masks.to(image.dtype), target).float(), masks[:, 0])
        return total / (self.probability * self.num_masks)


def shift_masks(grids: Tensor, shifts: Tensor, size: Sequence[int]) -> Tensor:
    """Enlarge grids to one cell more than the image, and crop them to the image.

    Args:
        grids: `(N, 1, h, w)`, 0 or 1.
        shifts: `(N, 2)` in [0, 1), start of the crop, down and across, in cells.
        size: height and width of the image in pixels.

    Returns:
        `(N, 1, height, width)`, float32, in [0, 1].
    """
    cell = [math.ceil(side / cells) for side, cells in zip(size, grids.shape[2:], strict=True)]
    large = enlarge(grids, [(cells + 1) * pixels for cells, pixels in zip(grids.shape[2:], cell, strict=True)])
    starts = (shifts * torch.tensor(cell)).long().tolist()
    height, width = size
    return torch.stack([mask[:, y : y + height, x : x + width] for mask, (y, x) in zip(large, starts, strict=True)])
