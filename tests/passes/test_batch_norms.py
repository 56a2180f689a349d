from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.models.check_batch import trust_batch
from holistic_cam_plugin.models.check_geometry import trust_layers
from holistic_cam_plugin.passes.batch_norms import light_batch_norms


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def trained(norm: nn.Module) -> nn.Module:
    """The norm with parameters and statistics of no particular value, in evaluation mode."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    return norm.eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (nn.BatchNorm1d, (2, 5)),
        (nn.BatchNorm1d, (2, 5, 7)),
        (nn.BatchNorm2d, (2, 5, 7, 4)),
        (nn.BatchNorm3d, (2, 5, 3, 4, 2)),
    ],
)
def test_output_and_gradient_are_those_of_the_norm_and_a_factor_a_channel_is_held(kind, shape, affine):
    norm = trained(kind(5, affine=affine))
    x, cotangent = torch.randn(shape, requires_grad=True), torch.randn(shape)
    expected = norm(x)
    with light_batch_norms(norm):
        output = norm(x)
    assert torch.equal(output, expected)
    assert [tuple(held.shape) for held in output.grad_fn.saved_tensors] == [(5,)]
    gradient, expected_gradient = (torch.autograd.grad(y, x, cotangent)[0] for y in (output, expected))
    torch.testing.assert_close(gradient, expected_gradient)


def test_in_bfloat16_the_gradient_has_the_inputs_precision():
    norm = trained(nn.BatchNorm2d(5))
    x = torch.randn(2, 5, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    expected = torch.autograd.grad(norm(x).sum(), x)[0]
    with light_batch_norms(norm):
        found = torch.autograd.grad(norm(x).sum(), x)[0]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


def test_a_norm_in_training_mode_is_left_alone():
    norm = nn.BatchNorm2d(5, track_running_stats=False).eval()  # takes its statistics of the batch
    x = torch.randn(2, 5, 4, 4, requires_grad=True)
    weights = torch.randn(2, 5, 4, 4)
    expected = torch.autograd.grad((norm(x) * weights).sum(), x)[0]
    with light_batch_norms(norm):
        assert torch.equal(torch.autograd.grad((norm(x) * weights).sum(), x)[0], expected)


class Conditional(nn.Module):
    """A norm whose scale and shift are made of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean(dim=(0, 2, 3))
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, weight=scale, bias=scale.square())


def test_gradients_flow_into_parameters_that_are_made_of_activations():
    model = trained(Conditional())
    x = torch.randn(2, 5, 4, 4, requires_grad=True)
    expected = torch.autograd.grad(model(x).sum(), x)[0]
    with light_batch_norms(model):
        assert torch.equal(torch.autograd.grad(model(x).sum(), x)[0], expected)


def test_a_model_may_map_its_norms_over_a_dimension():
    norm = trained(nn.BatchNorm2d(5))
    x = torch.randn(3, 2, 5, 4, 4, requires_grad=True)
    with light_batch_norms(norm):
        output = torch.func.vmap(norm)(x)
    torch.testing.assert_close(output, torch.stack([norm(part) for part in x]))


class Net(nn.Module):
    """Convolutions with norms; the second one's are recomputed in the backward pass, if asked for."""

    def __init__(self, recomputed: bool = False) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(channels, 6, 3), trained(nn.BatchNorm2d(6)), nn.ReLU(inplace=True))
            for channels in (3, 6)
        )
        self.head = nn.Linear(6, 4)
        self.recomputed = recomputed

    def forward(self, x: Tensor) -> Tensor:
        second = partial(checkpoint, self.second, use_reentrant=False) if self.recomputed else self.second
        return self.head(second(self.first(x)).mean(dim=(2, 3)))


def test_the_graph_of_a_pass_does_not_hold_what_its_norms_get(images):
    net = Net().eval()
    trust_layers([net.first], None)  # no checks, which are passes
    trust_batch(net)
    inputs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    net.second[1].register_forward_pre_hook(lambda _, given: inputs.append(weakref.ref(given[0])))
    net.head.register_forward_pre_hook(lambda *_: alive.append(sum(x() is not None for x in inputs)))
    HolisticCAM(net, [net.first], sizes=[64, 80])(images)
    assert alive == [0] * 2 * 2  # scales and images


def test_norms_may_be_recomputed_in_the_backward_pass(images):
    net = Net()
    recomputed = Net(recomputed=True)
    recomputed.load_state_dict(net.state_dict())
    maps, expected = (HolisticCAM(model, [model.first], sizes=[64, 80])(images) for model in (recomputed, net))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
