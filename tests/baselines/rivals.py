"""Nets and options for the tests of the rivals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.baselines.attribution import Attribution
from holistic_cam_plugin.baselines.cam import CAM
from holistic_cam_plugin.baselines.emp import EMP
from holistic_cam_plugin.baselines.igos import IGOS
from holistic_cam_plugin.baselines.msg_cam import MSGCAM
from holistic_cam_plugin.baselines.normgrad import NormGrad
from holistic_cam_plugin.baselines.rise import RISE

# Every rival that runs on the nets of conftest.py, with options that make it quick.
QUICK: dict[type[Attribution], dict[str, Any]] = {
    CAM: {},
    EMP: {"iterations": 3, "mask_size": 8},
    IGOS: {"iterations": 2, "path_steps": 3, "mask_size": 8},
    MSGCAM: {"scales": (1, 1.5), "groups": 4},
    NormGrad: {},
    RISE: {"num_masks": 40, "batch_size": 16},
}


class LooksAtAQuarter(nn.Module):
    """Class 0 is fine texture in the upper left quarter; blurring it away or blacking it out deletes the evidence."""

    def forward(self, x: Tensor) -> Tensor:
        fine = x - F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)
        height, width = x.shape[2] // 2, x.shape[3] // 2
        evidence = fine[:, :, :height, :width].square().mean(dim=(1, 2, 3))
        return torch.stack([4 * evidence - 2, torch.zeros_like(evidence)], dim=1)


def textured(size: int = 64) -> Tensor:
    """An image `(1, 3, size, size)` with the same fine texture everywhere."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
