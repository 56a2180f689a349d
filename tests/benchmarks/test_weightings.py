"""The study of weights, masks and fusions: candidates are compared with the class or a literal transcription."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import weightings
from benchmarks.harness.candidates import Candidate, Mask, explain_candidates
from benchmarks.table2 import raw_gradients
from benchmarks.weightings import CANDIDATES, FIGURE, mean_of_maps
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.errors import UsageError

SIZE = 32


@pytest.fixture
def found(subject):
    return explain_candidates(subject.model, ["0", "1"], CANDIDATES, subject.image, subject.target)


SETTINGS = {
    "pge, paper's mask": {},
    "pge, split signs": {},
    "S relu": {"weighting": "positive"},
    "S relu, no mask": {"weighting": "positive", "fsd": False},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_candidates_that_the_class_has(subject, found, name):
    model, image, target = subject
    for layer in ("0", "1"):
        cam = HolisticCAM(model, [model.get_submodule(layer)], **SETTINGS[name])(image, [target])[0]
        np.testing.assert_allclose(found[layer, name], cam, atol=1e-5)


def test_no_candidate_is_another_one_under_a_new_name(found):
    split = "pge, split signs"  # this layer, after a ReLU, holds nothing negative to split off
    maps = [found["0", name].tobytes() for name in CANDIDATES if name != split]
    assert len(set(maps)) == len(maps)
    np.testing.assert_allclose(found["0", split], found["0", "pge, paper's mask"], atol=1e-6)


def test_signed_channels_are_taken_as_two(subject):
    model, image, target = subject
    signed = nn.Sequential(model[0], *model[1], *model[2:])
    candidates = {"split": Candidate(weightings.relu, None, split=True), "whole": Candidate(weightings.relu, None)}
    found = explain_candidates(signed, ["1"], candidates, image, target)
    cam = HolisticCAM(signed, [signed[1]], weighting="gradient", fsd=False)
    (record,) = cam.intermediates(image, [target])[0]
    assert min(float(a.min()) for a in record.activations) < 0
    parts = []
    for sign in (1, -1):
        on_canvas = [
            [F.interpolate((sign * x).relu()[None], (SIZE, SIZE), mode="bilinear")[0] for x in stack]
            for stack in (record.activations, record.weights)
        ]
        mean_a, mean_w = (torch.stack(stack).mean(dim=0) for stack in on_canvas)
        parts.append((mean_a * mean_w).sum(dim=0))
    expected = (parts[0] + parts[1]).numpy()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(found["1", "split"], expected, atol=1e-5)
    assert np.abs(found["1", "split"] - found["1", "whole"]).max() > 0.01


def test_mean_of_maps_is_what_it_says():
    torch.manual_seed(0)
    activations, weights = ([torch.rand(3, n, n) for n in (2, 4)] for _ in range(2))
    maps = []
    for a, w in zip(activations, weights, strict=True):
        on_canvas = [F.interpolate(x[None], (8, 8), mode="bilinear")[0] for x in (a, w)]
        product = (on_canvas[0] * on_canvas[1]).sum(dim=0)
        maps.append((product - product.min()) / (product.max() - product.min()))
    torch.testing.assert_close(mean_of_maps(activations, weights, (8, 8)), sum(maps) / 2)
    flat = mean_of_maps([torch.zeros(3, 2, 2)], [torch.ones(3, 2, 2)], (8, 8))
    assert torch.equal(flat, torch.zeros(8, 8))


def test_shares_weigh_the_scales(subject):
    """Equal shares change nothing, and other shares change the map."""
    model, image, target = subject
    candidates = {
        "shares": Candidate(raw_gradients, Mask(), shares=lambda pyramid: [1.0] + [0.0] * 6),
        "alike": Candidate(raw_gradients, Mask(), shares=lambda pyramid: [2.0] * 7),
        "plain": Candidate(raw_gradients, Mask()),
    }
    found = explain_candidates(model, ["0"], candidates, image, target)
    assert np.array_equal(found["0", "alike"], found["0", "plain"])
    assert np.abs(found["0", "shares"] - found["0", "plain"]).max() > 0.01


def test_fewer_scales_are_the_pyramids_first(subject):
    model, image, target = subject
    candidates = {"three": Candidate(raw_gradients, scales=range(3)), "all": Candidate(raw_gradients)}
    found = explain_candidates(model, ["0"], candidates, image, target)
    cam = HolisticCAM(model, [model[0]], weighting="gradient", sizes=[32, 174, 317])(image, [target])[0]
    np.testing.assert_allclose(found["0", "three"], cam, atol=1e-6)


def test_the_command_compares_with_the_first_candidate(common, rows, capsys):
    some = ["pge, paper's mask", "S relu", "S rms 10"]
    weightings.main([*common, "--metrics", "epg", "--samples", "4", "--half", "tuned", "--candidates", *some])
    assert len(rows("weightings")) == 2 * 2 * len(some)
    assert f"{some[0]} minus the other" in capsys.readouterr().out


def test_unknown_candidates_are_named(common):
    with pytest.raises(UsageError, match="no candidate 'S rely'; did you mean S relu"):
        weightings.main([*common, "--candidates", "S rely"])
    with pytest.raises(UsageError, match="no candidate 'S rely'"):
        weightings.main([*common, "--candidates", "S rely", "--figure"])


def test_the_figure_has_grad_cams_channel_wise_map(common, subject, output):
    weightings.main([*common, "--figure", "--samples", "1"])
    assert len(list((output / "weightings").glob("*.png"))) == 1
    model, image, target = subject
    maps = explain_candidates(model, ["1"], FIGURE, image, target)
    cam = (model[:2](image) * model[4].weight[2][:, None, None]).sum(dim=1, keepdim=True)  # Grad-CAM's, by hand
    expected = F.interpolate(cam, size=(SIZE, SIZE), mode="bilinear")[0, 0].relu().detach()
    np.testing.assert_allclose(
        maps["1", "channel-wise"], (expected - expected.min()) / (expected.max() - expected.min()), atol=1e-5
    )
    plain = F.interpolate(model[:2](image).sum(dim=1, keepdim=True), size=(SIZE, SIZE), mode="bilinear")[0, 0].detach()
    expected = (plain - plain.min()) / (plain.max() - plain.min())
    np.testing.assert_allclose(maps["1", "activation sum"], expected, atol=1e-5)


def test_masks_with_a_floor_and_masks_that_fade(subject):
    model, image, target = subject
    masks = {"none": None, "paper": Mask(), "floor": Mask(floor=0.25), "fades": Mask(power=weightings.base_variation)}
    found = explain_candidates(
        model, ["1"], {n: Candidate(weightings.relu, m) for n, m in masks.items()}, image, target
    )
    cam = HolisticCAM(model, [model[1]], weighting="gradient", fsd=False)
    ((record,),) = cam.intermediates(image, [target])
    positive = HolisticCAM(model, [model[1]], weighting="positive").intermediates(image, [target])[0][0]
    scaled = positive.mask / positive.mask.max()
    variation = float(weightings.gradient_variation(record.weights[0][None]))
    for name, mask in {"floor": 0.25 + 0.75 * scaled, "fades": scaled**variation}.items():
        expected = positive.fused * mask
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(found["1", name], expected, atol=1e-5)


def test_channels_are_raw_where_their_gradient_is_constant():
    gradients = torch.tensor([[[[-2.0, -2.0]], [[-1.0, 1.0]]]])  # one constant channel, one that only varies
    weights = weightings.raw_where_constant(torch.ones_like(gradients), gradients)
    torch.testing.assert_close(weights, torch.tensor([[[[-2.0, -2.0]], [[0.0, 1.0]]]]))
