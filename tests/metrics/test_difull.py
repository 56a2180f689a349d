"""DiFull: scores and gradients of the quarters, and methods whose maps leak into the others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import HolisticCAM, swin_reshape_transform
from holistic_cam_plugin.metrics import DiFull, energy_pointing_game, rasterize_region
from holistic_cam_plugin.passes.capture import Capture

QUARTERS = range(4)
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(4)]


@pytest.fixture
def grids(make_images):
    return make_images(2, 64, 96)


def outside(region, height: int, width: int, margin: int = 0) -> np.ndarray:
    left, top, right, bottom = region
    return ~rasterize_region((left - margin, top - margin, right + margin, bottom + margin), height, width)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97)])
@pytest.mark.parametrize("quarter", QUARTERS)
def test_scores_are_those_of_the_quarter_by_itself(any_net, make_images, quarter, height, width):
    grids = make_images(2, height, width)
    disconnected = DiFull(any_net, quarter)
    left, top, right, bottom = disconnected.region(height, width)
    assert (right - left, bottom - top) == (48, 32)
    assert (left > 0, top > 0) == (quarter in (1, 3), quarter in (2, 3))
    with torch.no_grad():
        expected = any_net(grids[:, :, top:bottom, left:right])
        torch.testing.assert_close(disconnected(grids), expected, rtol=1e-5, atol=1e-6)


def test_regions_are_the_four_quarters():
    disconnected = DiFull(nn.Identity())
    union = np.zeros((6, 8), dtype=int)
    for disconnected.quarter in QUARTERS:
        union += rasterize_region(disconnected.region(6, 8), 6, 8)
    assert (union == 1).all()
    assert disconnected.region(7, 9) == (5, 4, 9, 7)  # the middle belongs to no quarter


def test_layers_come_back_as_one_map_of_the_grid(grids):
    first = nn.Identity()
    disconnected = DiFull(nn.Sequential(first, nn.Conv2d(3, 5, 1)))
    capture = Capture(disconnected, [first], disconnected.reshape_transform)
    capture(grids)
    assert torch.equal(capture.activations[0], grids)


def test_channels_last_features(grids):
    class Last(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    layer = Last()
    disconnected = DiFull(nn.Sequential(layer, nn.Flatten()), 0, swin_reshape_transform)
    capture = Capture(disconnected, [layer], disconnected.reshape_transform)
    capture(grids)
    assert torch.equal(capture.activations[0], grids)


@pytest.mark.parametrize("quarter", QUARTERS)
def test_other_quarters_have_no_gradient(any_net, grids, quarter):
    disconnected = DiFull(any_net, quarter)
    images = grids.clone().requires_grad_()
    scores = disconnected(images)
    sum(target(row) for target, row in zip(TARGETS, scores, strict=True)).backward()
    beyond = torch.from_numpy(outside(disconnected.region(64, 96), 64, 96))
    assert (images.grad[..., beyond] == 0).all()
    assert (images.grad[..., ~beyond] != 0).any()

    capture = Capture(disconnected, [any_net.layer2], disconnected.reshape_transform)
    rows = capture(grids)
    _, (gradients,) = capture.activations_and_gradients(
        sum(target(row) for target, row in zip(TARGETS, rows, strict=True))
    )
    beyond = torch.from_numpy(outside(disconnected.region(16, 24), 16, 24))
    assert gradients.shape[2:] == (16, 24)
    assert (gradients[..., beyond] == 0).all()
    assert (gradients[..., ~beyond] != 0).any()


def full_resolution_net() -> nn.Module:
    """The first layer's map has the image's size, so nothing is interpolated."""
    torch.manual_seed(0)
    head = [nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)]
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU()), *head).eval()


@pytest.mark.parametrize("quarter", QUARTERS)
def test_weights_of_single_elements_keep_all_energy_inside(grids, quarter):
    disconnected = DiFull(full_resolution_net(), quarter)
    layer, reshape = [disconnected.model[0]], disconnected.reshape_transform
    regions = [disconnected.region(64, 96)] * 2
    for cam in (
        LayerCAM(disconnected, layer, reshape),
        HolisticCAM(disconnected, layer, reshape, num_scales=1, fsd=False),
        HolisticCAM(disconnected, layer, reshape, num_scales=1),
    ):
        maps = cam(grids, TARGETS)
        assert (maps.max(axis=(1, 2)) > 0.99).all()
        np.testing.assert_array_equal(energy_pointing_game(maps, regions), 1)


def test_weights_of_channels_and_activations_alone_leak(make_images):
    grids = make_images(2, 24, 32)
    disconnected = DiFull(full_resolution_net())
    layer, reshape = [disconnected.model[0]], disconnected.reshape_transform
    maps = {}
    for disconnected.quarter in QUARTERS:
        regions = [disconnected.region(24, 32)] * 2
        assert energy_pointing_game(GradCAM(disconnected, layer, reshape)(grids, TARGETS), regions).max() < 0.9
        maps[disconnected.quarter] = EigenCAM(disconnected, layer, reshape)(grids, TARGETS)
    # The map is the same for every quarter, so its energy is divided among the four.
    energies = [energy_pointing_game(maps[0], [DiFull(nn.Identity(), q).region(24, 32)] * 2) for q in QUARTERS]
    assert all(np.array_equal(maps[0], maps[quarter]) for quarter in QUARTERS)
    np.testing.assert_allclose(np.sum(energies, axis=0), 1)


@pytest.mark.parametrize("fsd", [False, True])
@pytest.mark.parametrize("sizes", [None, [64, 77, 90]])
def test_pyramid_keeps_to_the_quarter_but_for_half_a_cell(any_net, grids, sizes, fsd):
    disconnected = DiFull(any_net, quarter=2)
    cam = HolisticCAM(
        disconnected, [any_net.layer2], disconnected.reshape_transform, sizes=sizes, num_scales=3, max_size=100, fsd=fsd
    )
    flags = [(module.training, [p.requires_grad for p in module.parameters()]) for module in disconnected.modules()]
    before = copy.deepcopy(disconnected.state_dict())
    region = disconnected.region(64, 96)
    maps = cam(grids, TARGETS)
    assert maps.shape == (2, 64, 96)
    assert (maps[:, outside(region, 64, 96, margin=4)] == 0).all()  # cells are 4 px wide
    assert energy_pointing_game(maps, [region] * 2).min() > 0.8
    assert all(torch.equal(value, before[key]) for key, value in disconnected.state_dict().items())
    assert [(m.training, [p.requires_grad for p in m.parameters()]) for m in disconnected.modules()] == flags
    assert all(p.grad is None for p in disconnected.parameters())


def test_targets_of_the_quarter_s_own_scores(net, grids):
    disconnected = DiFull(net, 3)
    cam = HolisticCAM(disconnected, [net.layer3], disconnected.reshape_transform, num_scales=1)
    predicted = net(grids[:, :, 32:, 48:]).argmax(dim=1)
    np.testing.assert_array_equal(cam(grids), cam(grids, [ClassifierOutputTarget(int(c)) for c in predicted]))
    assert cam.outputs.shape == (2, 6)


def test_invalid_arguments(net, grids):
    for quarter in (4, -1, None):
        with pytest.raises(ValueError, match="quarter must be an integer from 0 to 3"):
            DiFull(net, quarter)
    disconnected = DiFull(net)
    for bad in (grids[0], grids[..., :1]):
        with pytest.raises(ValueError, match=r"grids must be \(B, C, H, W\)"):
            disconnected(bad)
    for bad in (torch.ones(8, 5, 6), torch.ones(6, 5, 4, 4)):
        with pytest.raises(ValueError, match="transformers need DiFull"):
            disconnected.reshape_transform(bad)

    class Logits(nn.Module):
        def forward(self, x):
            return {"logits": x}

    with pytest.raises(TypeError, match="wrap the model"):
        DiFull(Logits())(grids)
