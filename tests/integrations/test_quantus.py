"""Metrics of Quantus, one of each kind, with a control: the same maps at the wrong position."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import ClassHolisticCAM
from holistic_cam_plugin.integrations import quantus as integration
from holistic_cam_plugin.integrations.quantus import explain_func

OPTIONS = {"target_layers": ["features"], "sizes": [32, 40]}
# Where class 0 looks, and class 1.
CORNERS = {0: np.s_[:16, :16], 1: np.s_[16:, 16:]}


class Corners(nn.Module):
    """Class 0 is brightness in the upper left quarter, class 1 in the lower right one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 4, stride=4)
        nn.init.constant_(self.features.weight, 1 / 48)
        nn.init.zeros_(self.features.bias)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(8, 2)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[0, [0, 4]] = self.head.weight[1, [3, 7]] = 4

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.features(x))))


@pytest.fixture
def model():
    return Corners().eval()


@pytest.fixture
def pictures():
    return np.random.default_rng(0).uniform(0.5, 1.5, (4, 3, 32, 32)).astype(np.float32)


CLASSES = np.array([0, 1, 0, 1])


def mirrored(model, inputs, targets, **options):
    """The control: the same maps at the wrong position."""
    return explain_func(model, inputs, targets, **options)[..., ::-1].copy()


def scores_of(metric, model, pictures, **arguments):
    """Scores of the maps and of the control."""
    return [np.array(run(metric, model, pictures, function, **arguments)) for function in (explain_func, mirrored)]


def run(metric, model, pictures, function=explain_func, **arguments):
    return metric(
        model,
        pictures.copy(),
        CLASSES,
        explain_func=function,
        explain_func_kwargs=dict(OPTIONS),
        softmax=False,
        **arguments,
    )


@pytest.fixture
def quantus():
    return pytest.importorskip("quantus", reason="needs Quantus, installed without its dependencies")


def test_maps_are_those_of_attribute(model, pictures):
    cam = ClassHolisticCAM(model, [model.features], sizes=[32, 40])
    maps = explain_func(model, pictures, CLASSES, **OPTIONS)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, cam.attribute(torch.tensor(pictures), [0, 1, 0, 1]).numpy())
    np.testing.assert_array_equal(explain_func(model, pictures.astype(float), CLASSES, **OPTIONS), maps)
    for one, category in zip(maps[:, 0], CLASSES, strict=True):
        assert one[CORNERS[category]].sum() > 0.5 * one.sum()


def test_normalized_maps_are_those_of_the_call(model, pictures):
    cam = ClassHolisticCAM(model, [model.features], sizes=[32, 40])
    expected = cam(torch.tensor(pictures), [ClassifierOutputTarget(int(category)) for category in CLASSES])
    maps = explain_func(model, pictures, CLASSES, normalize=True, device="cpu", **OPTIONS)
    np.testing.assert_array_equal(maps, expected[:, None])


def test_one_class_stands_for_all_images(model, pictures):
    np.testing.assert_array_equal(
        explain_func(model, pictures, np.array([1]), **OPTIONS),
        explain_func(model, pictures, np.array([1, 1, 1, 1]), **OPTIONS),
    )


def test_the_layers_are_those_of_the_model_handed_over(model, pictures):
    other = Corners().eval()
    with torch.no_grad():
        other.features.weight *= 3
    np.testing.assert_allclose(
        explain_func(other, pictures, CLASSES, **OPTIONS),
        3 * explain_func(model, pictures, CLASSES, **OPTIONS),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"target_layers": "features"}, TypeError, r"a list of module names, .*, got 'features'"),
        ({"target_layers": [nn.ReLU()]}, TypeError, r"a list of module names, .*, got \[ReLU\(\)\]"),
        ({"target_layers": ["feature"]}, ValueError, "no module 'feature'; did you mean features"),
        ({"target_layers": []}, ValueError, "target_layers"),
        ({"num_scale": 3}, TypeError, "unexpected keyword argument 'num_scale'"),
    ],
)
def test_invalid_arguments(model, pictures, given, error, match):
    with pytest.raises(error, match=match):
        explain_func(model, pictures, CLASSES, **(OPTIONS | given))


def test_optional_packages_are_not_imported():
    """Also not through the integration, whose module has the name of its tool."""
    optional = {"captum", "quantus", "timm", "transformers", "zennit"}
    code = (
        "import sys, holistic_cam_plugin, holistic_cam_plugin.metrics, holistic_cam_plugin.integrations.quantus; "
        f"sys.exit(str({optional} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"
    imports = [node for node in ast.walk(ast.parse(Path(integration.__file__).read_text())) if hasattr(node, "names")]
    assert not {alias.name.split(".")[0] for node in imports for alias in node.names} & optional


def test_faithfulness(quantus, model, pictures):
    """Removing a patch changes the score in proportion to the map's values in it."""
    np.random.seed(0)
    options = {"nr_runs": 60, "subset_size": 256, "perturb_baseline": "black", "return_aggregate": False}
    metric = quantus.FaithfulnessCorrelation(disable_warnings=True, **options)
    ours, control = scores_of(metric, model, pictures)
    assert ours.min() > 0.5
    assert (ours > control + 0.3).all()


def test_localisation(quantus, model, pictures):
    masks = np.zeros((4, 1, 32, 32), dtype=int)
    for mask, category in zip(masks, CLASSES, strict=True):
        mask[0][CORNERS[category]] = 1
    ours, control = scores_of(quantus.RelevanceRankAccuracy(disable_warnings=True), model, pictures, s_batch=masks)
    assert ours.min() > 0.9
    assert control.max() < 0.1


def test_complexity(quantus, model, pictures):
    """A map of one quarter is sparser than the same map with the rest filled."""
    metric = quantus.Sparseness(disable_warnings=True)
    ours, control = scores_of(metric, model, pictures)
    np.testing.assert_allclose(ours, control, atol=1e-6)  # the same values elsewhere
    maps = np.sort(explain_func(model, pictures, CLASSES, **OPTIONS).reshape(4, -1).astype(float))
    ranks = np.arange(1, maps.shape[1] + 1)
    gini = ((2 * ranks - maps.shape[1] - 1) * maps).sum(axis=1) / (maps.shape[1] * maps.sum(axis=1))
    np.testing.assert_allclose(ours, gini, atol=1e-3)
    assert ours.min() > 0.5


def test_randomisation(quantus, model, pictures):
    """Random weights of the head move the evidence: the copy is explained, not the original model."""
    metric = quantus.MPRT(disable_warnings=True, display_progressbar=False, layer_order="top_down")
    scores = run(metric, model, pictures)
    np.testing.assert_allclose(scores["original"], 1, atol=1e-6)
    assert np.mean(scores["head"]) < 0.9
    assert list(scores) == ["original", "head", "features"]
