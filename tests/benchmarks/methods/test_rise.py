"""RISE: its masks, the weighted mean spelt out, and a net that is known to look at one quarter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional as F

from benchmarks.methods.emp import EMP
from benchmarks.methods.igos import IGOS
from benchmarks.methods.rise import RISE, shift_masks
from tests.benchmarks.methods.textures import QuarterDetector, make_texture

TARGET = ClassifierOutputTarget(0)


class TestMasks:
    grids = (torch.rand(6, 1, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.5).float()

    def test_cut_out_of_a_grid_that_is_one_cell_larger(self):
        # 224 / 7 = 32 pixels a cell: the paper's 256 x 256 pixels, cut at 0 to 31.
        shifts = torch.tensor([[0, 0], [0.5, 0], [0, 0.99], [0.2, 0.7], [1 / 32, 2 / 32], [0.4, 0.4]])
        starts = [(0, 0), (16, 0), (0, 31), (6, 22), (1, 2), (12, 12)]
        masks = shift_masks(self.grids, shifts, (224, 224))
        for mask, grid, (y, x) in zip(masks, self.grids, starts, strict=True):
            large = F.interpolate(grid[None], (256, 256), mode="bilinear", align_corners=False)[0]
            torch.testing.assert_close(mask, large[:, y : y + 224, x : x + 224])

    @pytest.mark.parametrize("size", [(30, 50), (64, 64), (100, 224), (3, 5)])
    def test_any_size(self, size):
        masks = shift_masks(self.grids, torch.full((6, 2), 0.999), size)
        assert masks.shape == (6, 1, *size)
        assert masks.min() >= 0
        assert masks.max() <= 1 + 1e-6
        whole = shift_masks(torch.ones(1, 1, 7, 7), torch.tensor([[0.3, 0.9]]), size)
        torch.testing.assert_close(whole, torch.ones(1, 1, *size))

    def test_kept_share(self):
        generator = torch.Generator().manual_seed(0)
        grids = (torch.rand(3000, 1, 7, 7, generator=generator) < 0.3).float()
        masks = shift_masks(grids, torch.rand(3000, 2, generator=generator), (28, 28))
        assert float((masks.mean(dim=0) - 0.3).abs().max()) < 0.03


def test_weighted_mean_of_the_masks(net, images):
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].detach().unbind()))
    RISE(net, num_masks=10, batch_size=4)(images[:1], [TARGET])
    assert len(seen) == 10
    image = images[0].double().numpy()
    masks = [(copy.double().numpy() / image).mean(axis=0) for copy in seen]
    scores = [net(copy[None]).softmax(dim=1)[0, 0].item() for copy in seen[:10]]
    expected = sum(score * mask for score, mask in zip(scores, masks, strict=True)) / (10 * 0.5)
    result = RISE(net, num_masks=10, batch_size=4).compute_maps(images[:1], [TARGET])[0][0]
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_finds_what_the_net_looks_at():
    saliency_map = RISE(QuarterDetector(), num_masks=1000)(make_texture(), [TARGET])[0]
    inside = saliency_map[4:24, 4:24]
    outside = saliency_map[40:, 40:]
    assert inside.min() > outside.max()
    assert np.unravel_index(saliency_map.argmax(), (64, 64)) < (32, 32)


def test_seed_and_batch_size(net, images):
    maps = RISE(net, num_masks=30)(images)
    np.testing.assert_allclose(RISE(net, num_masks=30, batch_size=7)(images), maps, atol=1e-4)
    assert not np.allclose(RISE(net, num_masks=30, seed=1)(images), maps, atol=1e-2)


def test_score(net, images):
    # Of raw scores a constant that is added to all of them changes nothing but the masks' mean.
    raw = RISE(net, num_masks=30, score=lambda outputs: outputs)(images)
    assert not np.allclose(raw, RISE(net, num_masks=30)(images), atol=1e-3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_masks": 0}, "num_masks must be at least 1"),
        ({"cells": 0}, "cells must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"probability": 0.0}, "probability must be above 0 and at most 1, got 0.0"),
        ({"probability": 1.1}, "probability must be above 0"),
        ({"probability": float("nan")}, "probability must be above 0"),
        ({"probability": "0.5"}, "probability must be above 0"),
    ],
)
def test_refused(net, option, message):
    with pytest.raises(ValueError, match=message):
        RISE(net, **option)


@pytest.mark.parametrize("method", [RISE, EMP, IGOS])
def test_seeds(net, method):
    assert method(net, seed=np.int64(3)).seed == 3
    for seed in (0.5, "0", True):
        with pytest.raises(TypeError, match="seed must be an integer"):
            method(net, seed=seed)


def test_numpys_numbers_are_numbers(net, images):
    target = [ClassifierOutputTarget(2)]
    options = {"num_masks": 4, "probability": 0.5, "seed": 3}
    expected = RISE(net, **options)(images[:1], target)
    numpys = {"num_masks": np.int64(4), "probability": np.float32(0.5), "seed": np.int64(3)}
    np.testing.assert_array_equal(RISE(net, **numpys)(images[:1], target), expected)
