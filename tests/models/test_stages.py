"""The default layers avoid those whose gradient has a lattice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from holistic_cam_plugin import explainable


def make_net(pool: nn.Module) -> nn.Module:
    """Two stages with two blocks each, and a pooling between them."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in ((3, 8), (8, 8), (8, 16), (16, 16))]
    return nn.Sequential(
        nn.Sequential(nn.AvgPool2d(2), *blocks[:2], pool, *blocks[2:]),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "layer"),
    [(nn.MaxPool2d(3, 2), "0.1.1"), (nn.MaxPool2d(2, 2), "0.2"), (nn.AvgPool2d(2, 2), "0.2")],
    ids=["overlapping", "max", "mean"],
)
def test_the_layer_before_an_overlapping_pooling_is_no_default(pool, layer):
    names = explainable(make_net(pool), size=(64, 64)).layer_names
    assert names[0] == layer, names


def test_a_lattice_without_a_way_out_changes_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1), nn.Conv2d(8, 8, 1, 2), nn.Conv2d(8, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
    assert explainable(net, size=(64, 64)).layer_names == ["0", "2"]
