"""Parameter randomisation: only the named layers change, and never the original model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import (
    cascading_randomization,
    independent_randomization,
    list_parameter_layers,
    similarity,
)


class Scale(nn.Module):
    """A layer with parameters and no `reset_parameters`."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(2 + torch.randn(1, 6, 1, 1))
        self.inner = nn.Conv2d(6, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x * self.factors)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    net = nn.Sequential(stem, body, Scale(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    net.train()
    net(torch.randn(8, 3, 8, 8))  # statistics and parameters away from where they start
    with torch.no_grad():
        net[0][1].weight.uniform_(0.5, 2)
        net[0][1].bias.uniform_(-1, 1)
    net[0].eval()
    net[1].requires_grad_(False)
    return net


ORDER = ["5", "2.inner", "2", "1.0", "0.1", "0.0"]
OWN = {
    "5": {"5.weight", "5.bias"},
    "2.inner": {"2.inner.weight", "2.inner.bias"},
    "2": {"2.factors", "2.inner.weight", "2.inner.bias"},
    "1.0": {"1.0.weight", "1.0.bias"},
    "0.1": {"0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked"},
    "0.0": {"0.0.weight", "0.0.bias"},
}


def changed(a: nn.Module, b: nn.Module) -> set[str]:
    state = b.state_dict()
    return {key for key, value in a.state_dict().items() if not torch.equal(value, state[key])}


def test_default_layers_from_the_output_to_the_input(model):
    assert list_parameter_layers(model) == ORDER
    assert [name for name, _ in cascading_randomization(model)] == ORDER
    assert [name for name, _ in independent_randomization(model)] == ORDER


def test_independent_changes_the_named_layer_alone(model):
    for name, randomized in independent_randomization(model):
        assert changed(model, randomized) == OWN[name]


def test_cascade_keeps_what_was_randomised(model):
    expected: set[str] = set()
    seen = []
    for name, randomized in cascading_randomization(model):
        expected |= OWN[name]
        assert changed(model, randomized) == expected
        seen.append((randomized, copy.deepcopy(randomized.state_dict())))
    assert expected == set(model.state_dict())
    for randomized, state in seen:  # every copy is the caller's to keep
        assert all(torch.equal(value, state[key]) for key, value in randomized.state_dict().items())


def test_both_kinds_draw_the_same_parameters(model):
    single = {
        name: randomized.get_submodule(name).state_dict() for name, randomized in independent_randomization(model)
    }
    for name, randomized in cascading_randomization(model):
        for key, value in randomized.get_submodule(name).state_dict().items():
            assert torch.equal(value, single[name][key])


def test_chosen_layers_in_the_given_order(model):
    steps = list(cascading_randomization(model, ["0", "5"]))
    assert [name for name, _ in steps] == ["0", "5"]
    assert changed(model, steps[0][1]) == OWN["0.0"] | OWN["0.1"]
    assert changed(model, steps[1][1]) == OWN["0.0"] | OWN["0.1"] | OWN["5"]
    (everything,) = independent_randomization(model, [""])
    assert changed(model, everything[1]) == set(model.state_dict())


@pytest.mark.parametrize("randomization", [cascading_randomization, independent_randomization])
def test_user_s_model_and_random_state_are_unchanged(model, randomization):
    before = copy.deepcopy(model.state_dict())
    flags = [(module.training, [p.requires_grad for p in module.parameters()]) for module in model.modules()]
    parameters = list(map(id, model.parameters()))
    state = torch.get_rng_state()
    for _, randomized in randomization(model):
        assert torch.equal(torch.get_rng_state(), state)
        copied = [(module.training, [p.requires_grad for p in module.parameters()]) for module in randomized.modules()]
        assert copied == flags
        assert not set(parameters) & set(map(id, randomized.parameters()))
        randomized(torch.randn(4, 3, 8, 8))
        torch.set_rng_state(state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()] == flags
    assert list(map(id, model.parameters())) == parameters


def test_seed(model):
    def weights(seed):
        return [r.state_dict() for _, r in cascading_randomization(model, seed=seed)][-1]

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.0.weight"], other["0.0.weight"])


def test_equal_shapes_get_different_parameters():
    twins = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    ((_, randomized),) = cascading_randomization(twins, [""])
    assert not torch.equal(randomized[0].weight, randomized[1].weight)


def test_initial_distributions(model):
    states = dict(independent_randomization(model))
    norm = states["0.1"][0][1]
    for tensor, value in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
        assert (tensor == value).all()
    wide = nn.Module()
    wide.values = nn.Parameter(5 + 2 * torch.randn(20000))
    ((_, randomized),) = independent_randomization(wide.requires_grad_(False))
    assert float(randomized.values.mean()) == pytest.approx(5, abs=0.1)
    assert float(randomized.values.std()) == pytest.approx(2, abs=0.1)
    assert abs(np.corrcoef(randomized.values, wide.values)[0, 1]) < 0.05


@pytest.mark.parametrize("randomization", [cascading_randomization, independent_randomization])
def test_invalid_layers(model, randomization):
    with pytest.raises(ValueError, match="no module named 'layer4'"):
        list(randomization(model, ["5", "layer4"]))
    with pytest.raises(ValueError, match="module '4' has no parameters"):
        list(randomization(model, ["4"]))


def test_the_example_of_the_module(model):
    model.eval()
    image, targets = torch.randn(1, 3, 32, 32), [ClassifierOutputTarget(1)]
    expected = GradCAM(model, [model.get_submodule("1")])(image, targets)
    assert similarity(expected[0], expected[0]) == (1, 1)
    values = []
    for _, randomized in cascading_randomization(model, seed=1):
        cams = GradCAM(randomized, [randomized.get_submodule("1")])(image, targets)
        values.append(similarity(expected[0], cams[0]).ssim)
    assert max(values) < 0.999
