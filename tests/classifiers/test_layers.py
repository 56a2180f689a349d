"""A model's layers: those that give maps, one for each stage, by name."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from holistic_cam_plugin.classifiers.layers import LayerInfo, check_maps, find_layers, probe_layers, stage_layers
from holistic_cam_plugin.errors import UsageError


def test_the_layers_of_a_resnet_and_its_stages():
    model = torchvision.models.resnet18(weights=None).eval()
    layers = probe_layers(model, 224, torch.device("cpu"))
    shapes = {layer.name: layer.shape for layer in layers}
    stages = stage_layers(layers, 224, 1000)
    assert [(name, shapes[name]) for name in stages] == [
        ("layer1", (64, 56, 56)),
        ("layer2", (128, 28, 28)),
        ("layer3", (256, 14, 14)),
        ("layer4", (512, 7, 7)),
    ]
    assert shapes["layer3.0.conv1"] == (256, 14, 14)
    assert "avgpool" not in shapes
    assert find_layers(model, ["layer4", "layer1.0"]) == [model.layer4, model.layer1[0]]
    assert not any(module._forward_hooks for module in model.modules())


def test_modules_that_run_twice_are_left_out():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(self.shared(self.first(x)))

    assert [layer.name for layer in probe_layers(Twice(), 32, torch.device("cpu"))] == ["first"]


def test_a_model_without_square_maps_says_so():
    tokens = [LayerInfo("blocks", "Sequential", (8, 7, 96))]
    with pytest.raises(UsageError, match="reshape transform"):
        stage_layers(tokens, 224, 1000)


def test_wrong_names_get_near_matches():
    model = torchvision.models.squeezenet1_1(weights=None)
    with pytest.raises(
        UsageError, match=r"the model has no layer 'feature\.12'; did you mean features\.12.*--list-layers"
    ):
        find_layers(model, ["features.7", "feature.12"])
    with pytest.raises(UsageError, match="no layer ''"):
        find_layers(model, [""])


def test_layers_without_maps_are_named():
    model = torchvision.models.resnet18(weights=None).eval()
    model.aside = nn.Conv2d(3, 4, 1)
    device = torch.device("cpu")
    check_maps(model, ["layer4", "avgpool", "layer1.0.relu"], 64, device)  # relu runs twice: the first call counts
    with pytest.raises(UsageError, match=r"layer 'fc' gives \(1, 1000\), not maps \(B, C, h, w\)"):
        check_maps(model, ["layer4", "fc"], 64, device)
    with pytest.raises(UsageError, match="layer 'aside' takes no part in it"):
        check_maps(model, ["aside"], 64, device)
    with pytest.raises(UsageError, match="no layer 'layer5'"):
        check_maps(model, ["layer5"], 64, device)
    assert not any(module._forward_hooks for module in model.modules())
