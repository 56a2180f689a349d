"""Nothing is computed that is not needed, and nothing is kept."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM

SIZES = {"sizes": [64, 80, 96]}


def test_forwards_of_the_model_between_calls_record_nothing(net, images):
    cam = HolisticCAM(net, [net.layer2], **SIZES)
    for _ in range(5):
        net(images)
    assert cam.activations_and_grads.activations == []
    cam(images)
    for _ in range(5):
        net(images)
    assert cam.activations_and_grads.activations == []


class Node(torch.autograd.Function):
    """The identity, which logs whether gradients are asked of it."""

    @staticmethod
    def forward(ctx, x, log):
        ctx.log = log
        log.needed.append(ctx.needs_input_grad[0])
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        ctx.log.backwards += 1
        return gradient, None


class Log(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.needed: list[bool] = []
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        return Node.apply(x, self)


@pytest.mark.parametrize("grad", [False, True])
def test_there_is_no_graph_below_the_earliest_target_layer(net, images, grad):
    below, above = Log(), Log()
    net.layer1.append(below)
    net.layer3.append(above)
    HolisticCAM(net, [net.layer2, net.layer3[0]], **SIZES)(images.requires_grad_(grad))
    assert not any(below.needed)
    assert below.backwards == 0
    assert all(above.needed)
    assert above.backwards == 3 * 2  # scales and batches of one image


class Saved:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_one_scales_graph_is_alive_at_a_time_and_none_after(net, images):
    graph, alive = weakref.WeakSet(), []

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        graph.add(saved)
        return saved

    cam = HolisticCAM(net, [net.layer1, net.layer2], **SIZES)
    net.register_forward_pre_hook(lambda *_: alive.append(len(graph)))
    net.layer3.register_forward_hook(lambda *_: alive.append(len(graph)))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        cam(images)
    before, during = alive[::2], alive[1::2]
    assert len(before) == 3 * 2  # scales and batches of one image
    assert min(during) > 0
    assert set(before) == {0}
    assert len(graph) == 0
    assert cam.outputs.grad_fn is None


def test_gradients_of_the_weights_are_not_computed(net, images):
    log = Log()

    class Watched(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, log(self.weight), self.bias)

    net.layer3[0] = Watched(8, 10, 3)
    HolisticCAM(net, [net.layer2], **SIZES)(images)
    assert log.needed == [True] * 3 * 2
    assert log.backwards == 0


def living_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("options", [{}, {"eigen_smooth": True}, {"aug_smooth": True}], ids=str)
def test_tensors_do_not_accumulate(net, images, options):
    cam = HolisticCAM(net, [net.layer1, net.layer3], **SIZES)
    before = living_tensors()
    for _ in range(3):
        cam(images, **options)
    assert living_tensors() - before == 1  # cam.outputs
    del cam
    assert living_tensors() == before
