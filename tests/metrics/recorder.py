"""A classifier that remembers how it was run."""

from __future__ import annotations

import torch
from torch import nn


class Recorder(nn.Module):
    """Pooled channels as class scores; remembers the sizes of its batches and in which mode it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout()
        self.batches: list[int] = []
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        self.modes.add((self.training or self.drop.training, torch.is_inference_mode_enabled()))
        return self.drop(images.mean(dim=(2, 3))) * self.scale
