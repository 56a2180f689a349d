"""A model and an image for the tests of perturbation methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QuarterDetector(nn.Module):
    """Class 0 is fine texture in the upper left quarter; blurring it away or blacking it out deletes the evidence."""

    def forward(self, x: Tensor) -> Tensor:
        fine = x - F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)
        height, width = x.shape[2] // 2, x.shape[3] // 2
        evidence = fine[:, :, :height, :width].square().mean(dim=(1, 2, 3))
        return torch.stack([4 * evidence - 2, torch.zeros_like(evidence)], dim=1)


def make_texture(size: int = 64) -> Tensor:
    """Make an image `(1, 3, size, size)` with the same fine texture everywhere."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
