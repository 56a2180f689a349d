"""The default layers avoid those whose gradient has a lattice."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from holistic_cam_plugin import explainable


@pytest.mark.parametrize("seed", range(3))
def test_the_layers_before_an_overlapping_pooling_are_no_default(seed):
    torch.manual_seed(seed)
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    # Before the poolings are features.4 and features.7.
    assert explainable(net).layer_names == ["features.3", "features.6", "features.12"]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)], ids=["max", "mean"])
def test_other_poolings_make_no_lattice(pool):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in ((3, 8), (8, 8), (8, 16), (16, 16))]
    net = nn.Sequential(nn.AvgPool2d(2), *blocks[:2], pool, *blocks[2:], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(16, 5))
    assert explainable(net.eval(), size=(64, 64)).layer_names == ["2", "5"]


def test_a_lattice_without_a_way_out_changes_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1), nn.Conv2d(8, 8, 1, 2), nn.Conv2d(8, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
    assert explainable(net, size=(64, 64)).layer_names == ["0", "2"]
