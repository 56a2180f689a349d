from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.passes.capture import Capture, check_target_layers
from holistic_cam_plugin.passes.model_state import eval_mode, unwrap_model


class InPlace(nn.Module):
    """Every operation after the convolutions works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x), inplace=True)
        x = self.conv2(x).relu_()
        return self.linear(x.mean(dim=(2, 3)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.linear = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.shared(self.shared(self.stem(x)).relu()).relu().mean(dim=(2, 3)))


class Branches(nn.Module):
    """Two parallel branches, one that the output does not use and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.unused, self.idle = (nn.Conv2d(3, 4, 1) for _ in range(4))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.linear((self.left(x) * self.right(x)).mean(dim=(2, 3)))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).sin().reshape(2, 3, 8, 8)


def test_the_output_is_the_models_own(net, images):
    assert torch.equal(Capture(net, [net.layer2])(images), net(images))


def test_activations_and_gradients_are_those_of_plain_autograd(net, images):
    a1 = net.layer1(images).detach().requires_grad_()
    a2 = net.layer2(a1)
    score = net.head(net.layer3(a2))[:, 2].sum()
    g1, g2 = torch.autograd.grad(score, [a1, a2])

    capture = Capture(net, [net.layer1, net.layer2])
    activations, gradients = capture.activations_and_gradients(capture(images)[:, 2].sum())
    for got, expected in zip(activations + gradients, [a1, a2, g1, g2], strict=True):
        torch.testing.assert_close(got, expected.detach())
        assert not got.requires_grad
    assert capture.activations == []  # nothing is kept


def test_the_librarys_form_is_backward_then_gradients(net, images):
    capture = Capture(net, [net.layer3, net.layer1])
    output = capture(images)
    assert [a.shape[1] for a in capture.activations] == [10, 6]
    assert capture.gradients == []
    output[:, 1].sum().backward(retain_graph=True)
    activations, gradients = capture.activations, capture.gradients
    _, expected = capture.activations_and_gradients(output[:, 1].sum())
    assert all(torch.equal(g, e) for g, e in zip(gradients, expected, strict=True))
    assert [a.shape for a in activations] == [g.shape for g in gradients]
    capture.release()
    assert capture.activations == capture.gradients == []


@pytest.mark.parametrize("order", [("layer1", "layer2", "layer3"), ("layer3", "layer1", "layer2")])
def test_records_come_in_the_users_order(net, images, order):
    activations = Capture(net, [net.get_submodule(name) for name in order])
    activations(images)
    assert [a.shape[1] for a in activations.activations] == [{"1": 6, "2": 8, "3": 10}[name[-1]] for name in order]


def test_a_later_layer_keeps_its_graph_to_an_earlier_one(any_net, images):
    alone = Capture(any_net, [any_net.layer1])
    _, (expected,) = alone.activations_and_gradients(alone(images)[:, 0].sum())
    both = Capture(any_net, [any_net.layer3, any_net.layer1])
    _, gradients = both.activations_and_gradients(both(images)[:, 0].sum())
    torch.testing.assert_close(gradients[1], expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_in_place_operations_do_not_change_what_was_recorded(frozen):
    model = InPlace().requires_grad_(not frozen)
    capture = Capture(model, [model.conv1, model.conv2])
    activations, gradients = capture.activations_and_gradients(capture(X)[:, 0].sum())
    first = model.conv1(X)
    second = model.conv2(first.relu())
    torch.testing.assert_close(activations[0], first)
    torch.testing.assert_close(activations[1], second)
    assert activations[0].min() < 0
    assert activations[1].min() < 0
    # A ReLU, the mean of 4 x 4 positions, the linear layer.
    expected = (second > 0) / 16 * model.linear.weight[0][:, None, None]
    torch.testing.assert_close(gradients[1], expected.detach())


def test_of_a_layer_that_runs_twice_the_first_call_counts():
    model = Twice()
    first = model.shared(model.stem(X)).detach().requires_grad_()
    score = model.linear(model.shared(first.relu()).relu().mean(dim=(2, 3)))[:, 1].sum()
    capture = Capture(model, [model.shared])
    (activation,), (gradient,) = capture.activations_and_gradients(capture(X)[:, 1].sum())
    torch.testing.assert_close(activation, first.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(score, first)[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_parallel_branches_each_get_their_gradient(frozen):
    model = Branches().requires_grad_(not frozen)
    capture = Capture(model, [model.right, model.left])
    (right, left), gradients = capture.activations_and_gradients(capture(X)[:, 0].sum())
    weight = model.linear.weight[0].detach()[:, None, None] / 64
    torch.testing.assert_close(gradients[0], left * weight)
    torch.testing.assert_close(gradients[1], right * weight)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_records_under_no_grad_and_inference_mode(context):
    model = Branches()
    capture = Capture(model, [model.left])
    _, (expected,) = capture.activations_and_gradients(capture(X)[:, 0].sum())
    with context():
        # The right branch uses the input after gradients were enabled: an inference tensor could not be saved there.
        output = capture(X * 1)
        assert not torch.is_grad_enabled()
    _, (gradient,) = capture.activations_and_gradients(output[:, 0].sum())
    assert torch.equal(gradient, expected)


def test_nested_and_duplicate_layers(net, images):
    layers = [net.layer2, net.layer2[1], net.layer2[0], net.layer2]
    capture = Capture(net, layers)
    activations, gradients = capture.activations_and_gradients(capture(images)[:, 0].sum())
    assert torch.equal(activations[0], activations[3])
    assert torch.equal(gradients[0], gradients[3])
    torch.testing.assert_close(activations[0], activations[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(activations[2].relu(), activations[1])
    torch.testing.assert_close(gradients[2], gradients[1] * (activations[2] > 0))


def test_the_reshape_transform_makes_maps_of_activations_and_gradients():
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.Flatten(), nn.Linear(18, 2))
    capture = Capture(model, [model[1]], lambda tokens: tokens.unflatten(2, (2, 3)))
    activations, gradients = capture.activations_and_gradients(capture(X)[:, 0].sum())
    assert activations[0].shape == gradients[0].shape == (2, 3, 2, 3)
    torch.testing.assert_close(gradients[0].flatten(1), model[3].weight[0].detach().expand(2, -1))


@pytest.mark.parametrize(
    ("transform", "match"),
    [
        (None, r"'1' \(Linear\) returns activations of shape \(2, 3, 6\), .*; transformers need a reshape_transform"),
        (lambda tokens: tokens[0], r"'1' \(Linear\) returns activations of shape \(3, 6\), not \(B, C, h, w\)$"),
    ],
)
def test_activations_that_are_no_maps_are_refused(transform, match):
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.Flatten(), nn.Linear(18, 2))
    capture = Capture(model, [model[1]], transform)
    with pytest.raises(ValueError, match=match):
        capture.activations_and_gradients(capture(X)[:, 0].sum())


def test_a_layer_that_does_not_run_is_named():
    model = Branches()
    with pytest.raises(ValueError, match=r"target layer 'idle' \(Conv2d\) did not run in the model's forward pass"):
        Capture(model, [model.left, model.idle])(X)


def test_a_layer_without_influence_is_named():
    model = Branches()
    capture = Capture(model, [model.left, model.unused])
    output = capture(X)
    with pytest.raises(ValueError, match=r"target layer 'unused' \(Conv2d\) does not influence the targets' score"):
        capture.activations_and_gradients(output[:, 0].sum())


def test_a_layer_that_returns_no_tensor_is_named():
    model = nn.Sequential(nn.Flatten(2), nn.LSTM(64, 4))
    with pytest.raises(TypeError, match=r"'1' \(LSTM\) returns a tuple, not a tensor: pass a layer inside it"):
        Capture(model, [model[1]])(X)
    assert not model[1]._forward_hooks


def test_evaluation_mode_restores_every_modules_own_flag(net):
    net.train()
    net.layer2.eval()
    before = {name: module.training for name, module in net.named_modules()}
    assert set(before.values()) == {True, False}
    with eval_mode(net):
        assert not any(module.training for module in net.modules())
    assert {name: module.training for name, module in net.named_modules()} == before
    with pytest.raises(KeyError), eval_mode(net):
        raise KeyError
    assert {name: module.training for name, module in net.named_modules()} == before


def test_wrappers_are_taken_off_also_nested_ones(net):
    compiled = torch.compile(net, backend="eager")
    assert unwrap_model(net) is unwrap_model(nn.DataParallel(net)) is unwrap_model(compiled) is net
    assert unwrap_model(torch.compile(nn.DataParallel(net), backend="eager")) is net


def test_distributed_data_parallel_is_taken_off(net):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert unwrap_model(nn.parallel.DistributedDataParallel(net)) is net
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        (lambda net: net.layer2, TypeError, r"must be a list, got a Sequential: pass a list .* \[model.layer4\]"),
        (lambda net: "layer2", TypeError, "must be a list, got a str"),
        (lambda net: None, TypeError, "must be a list, got a NoneType"),
        (lambda net: [], ValueError, "target_layers is empty: pass a list"),
        (lambda net: ["layer2"], TypeError, "every target layer must be a module, got 'layer2'"),
        (lambda net: [net.layer1, nn.ReLU()], ValueError, "a target layer of type ReLU is not part of the model"),
    ],
)
def test_wrong_target_layers_are_refused(net, layers, error, match):
    with pytest.raises(error, match=match):
        check_target_layers(net, layers(net))
