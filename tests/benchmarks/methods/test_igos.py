"""I-GOS: its direction by finite differences and its line search; that it deletes the evidence is in test_emp.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional as F

from benchmarks.methods import igos
from benchmarks.methods.igos import IGOS
from benchmarks.methods.perturbation import blur

TARGET = ClassifierOutputTarget(1)


def literal_objective(net, image, baseline, mask, steps=None):
    """F of the paper with the score at one point, or its mean over a path of masks that are scaled down together."""
    mask = torch.tensor(mask)[None, None]
    large = F.interpolate(mask, image.shape[2:], mode="bilinear", align_corners=False)
    shares = [1] if steps is None else [(s + 1) / steps for s in range(steps)]
    copies = [image * share * large + baseline * (1 - share * large) for share in shares]
    score = np.mean([net(copy).softmax(dim=1)[0, 1].item() for copy in copies])
    cells = mask[0, 0].numpy()
    variation = (np.diff(cells, axis=0) ** 2).mean() + (np.diff(cells, axis=1) ** 2).mean()
    return score + (1 - cells).mean() + 20 * variation


@pytest.fixture
def case(make_net, make_images):
    net, image = make_net("signed").double(), make_images(1).double()  # smooth: no ReLU spoils the differences
    mask = np.random.default_rng(0).uniform(0.2, 0.8, (4, 4))
    return net, image, blur(image, 50, 51), mask


def test_direction(case, monkeypatch):
    monkeypatch.setattr(igos, "_NOISE", 0.0)
    net, image, baseline, mask = case
    method = IGOS(net, path_steps=5, mask_size=4, score=lambda outputs: outputs.softmax(dim=1))
    direction = method._find_direction(image, baseline, torch.tensor(mask)[None, None], TARGET, torch.Generator())
    for cell in np.ndindex(mask.shape):
        step = np.zeros_like(mask)
        step[cell] = 1e-5
        difference = literal_objective(net, image, baseline, mask + step, 5) - literal_objective(
            net, image, baseline, mask - step, 5
        )
        assert float(direction[0, 0][cell]) == pytest.approx(difference / 2e-5, abs=1e-6)


def test_noise_is_added_to_the_path(case, monkeypatch):
    net, image, baseline, mask = case
    method = IGOS(net, path_steps=5, mask_size=4)
    directions = []
    for noise in (0.0, 0.2, 0.2):
        monkeypatch.setattr(igos, "_NOISE", noise)
        generator = torch.Generator().manual_seed(0)
        start = torch.tensor(mask)[None, None]
        directions.append(method._find_direction(image, baseline, start, TARGET, generator))
    assert torch.equal(directions[1], directions[2])
    assert not torch.equal(directions[0], directions[1])


class TestLineSearch:
    def loss(self, mask):
        return float((mask - 0.3).square().sum())

    def test_takes_the_longest_step_that_lowers_the_loss_enough(self):
        mask = torch.full((1, 1, 2, 2), 0.9)
        moved = igos._search_line(self.loss, mask, 2 * (mask - 0.3))
        # The steps are 200, 40, 8, 1.6, ...; all cells are cut off at 0 from 1.6 on, where the loss is 4 * 0.09.
        assert torch.equal(moved, torch.zeros_like(mask))
        near = torch.full((1, 1, 2, 2), 0.5)
        moved = igos._search_line(self.loss, near, 2 * (near - 0.3))
        torch.testing.assert_close(moved, near - 0.32 * 0.4)  # at 1.6 and above the loss rises

    def test_stays_in_range_and_ends_where_nothing_helps(self):
        mask = torch.rand(1, 1, 3, 3)
        moved = igos._search_line(lambda m: float((m - mask).abs().sum()), mask, torch.ones_like(mask))
        torch.testing.assert_close(moved, mask, atol=1e-5, rtol=0)
        far = igos._search_line(lambda m: -float(m.sum()), mask, -torch.ones_like(mask))
        assert torch.equal(far, torch.ones_like(mask))


def test_the_objective_never_rises(make_net, make_images):
    net, image = make_net(), make_images(1)
    baseline = blur(image, 50, 51)
    values = [literal_objective(net, image, baseline, np.ones((7, 7), np.float32))]
    for iterations in (1, 2, 4):
        saliency_map = IGOS(net, iterations=iterations, mask_size=7).compute_maps(image, [TARGET])[0]
        mask = 1 - F.interpolate(saliency_map[None], (7, 7), mode="area")[0, 0].numpy()
        values.append(literal_objective(net, image, baseline, mask))
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("option", ["iterations", "path_steps", "mask_size"])
def test_refused(net, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1"):
        IGOS(net, **{option: 0})
