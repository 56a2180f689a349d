"""The study of class masks: candidates are compared with the class, and with masks made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import class_masks
from benchmarks.class_masks import CANDIDATES
from benchmarks.harness.candidates import Candidate, ClassMask, explain_candidates
from benchmarks.weightings import relu
from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, class_evidence, denoising_mask, low_pass_wrap
from tests.conftest import min_max

OWN = {"mask_layer": None, "contrast": 0, "fuse_base": True, "by_positions": False}
SETTINGS = {
    "own mask": OWN,
    "class mask": OWN | {"mask_layer": "deepest"},
    "class mask, positions": OWN | {"mask_layer": "deepest", "by_positions": True},
    "class mask, without 1": OWN | {"mask_layer": "deepest", "fuse_base": False},
    "contrast 1": OWN | {"mask_layer": "deepest", "contrast": 1},
    "contrast 1, without 1": OWN | {"mask_layer": "deepest", "fuse_base": False, "contrast": 1},
    "contrast 1, without 1, positions": {},
}


@pytest.fixture
def found(subject):
    model, image, target = subject
    return explain_candidates(model, ["0", "1"], CANDIDATES, image, target, {"mask_layer": model[1]})


@pytest.mark.parametrize("name", SETTINGS)
def test_candidates_that_the_class_has(subject, found, name):
    model, image, target = subject
    for layer in ("0", "1"):
        cam = ClassHolisticCAM(model, [model.get_submodule(layer)], sizes="paper", **SETTINGS[name])(image, [target])[0]
        np.testing.assert_allclose(found[layer, name], cam, atol=1e-5)


def test_no_candidate_is_another_one_under_a_new_name(found):
    maps = [found["0", name].tobytes() for name in CANDIDATES]
    assert len(set(maps)) == len(maps)


def test_a_mask_of_few_scales_to_a_power(subject):
    model, image, target = subject
    candidate = Candidate(relu, None, split=True, class_mask=ClassMask(range(2), contrast=2, power=0.5))
    found = explain_candidates(model, ["0"], {"it": candidate}, image, target, {"mask_layer": model[1]})
    cam = HolisticCAM(model, [model[0], model[1]], weighting="gradient", fsd=False)
    (_,), (deepest,) = cam.intermediates(image, [target])
    mask = low_pass_wrap(class_evidence(deepest.activations[:2], deepest.weights[:2], (32, 32), 2))
    fused = HolisticCAM(model, [model[0]], weighting="positive", fsd=False).intermediates(image, [target])[0][0].fused
    np.testing.assert_allclose(found["0", "it"], min_max(fused * (mask / mask.max()) ** 0.5), atol=1e-5)


def test_evidence_against_the_class_counts_beta_times(subject):
    model, image, target = subject
    candidate = Candidate(relu, None, split=True, class_mask=ClassMask(range(1), against=1.2))
    found = explain_candidates(model, ["1"], {"it": candidate}, image, target, {"mask_layer": model[1]})
    cam = HolisticCAM(model, [model[1]], weighting="gradient", fsd=False)
    ((deepest,),) = cam.intermediates(image, [target])
    a, g = (F.interpolate(x[None], (32, 32), mode="bilinear")[0] for x in (deepest.activations[0], deepest.weights[0]))
    low = F.interpolate(deepest.weights[0].clamp(max=0)[None], (32, 32), mode="bilinear")[0]
    evidence = (a * (g + 0.2 * low)).sum(dim=0).clamp(min=0).numpy()
    fused = HolisticCAM(model, [model[1]], weighting="positive", fsd=False).intermediates(image, [target])[0][0].fused
    assert evidence.any()
    np.testing.assert_allclose(found["1", "it"], min_max(fused * denoising_mask(evidence)), atol=1e-5)


def test_positions_are_counted():
    pyramid = type("Pyramid", (), {"gradients": [torch.zeros(3, 2, 5), torch.zeros(3, 4, 10)]})
    assert class_masks.by_positions(pyramid) == [10.0, 40.0]


def test_the_command_compares_with_the_first_candidate(common, rows, capsys):
    some = ["own mask", "class mask", "contrast 1, without 1"]
    class_masks.main([*common, "--metrics", "epg", "--samples", "2", "--half", "tuned", "--candidates", *some])
    assert len(rows("class_masks")) == 2 * len(some)
    assert f"{some[0]} minus the other" in capsys.readouterr().out
