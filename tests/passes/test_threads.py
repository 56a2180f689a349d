"""Threads that share a model, each with an object of its own, and threads that share an object."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.passes.capture import Capture
from holistic_cam_plugin.passes.model_state import eval_mode

SMALL = {"sizes": [64, 80]}
THREADS, ROUNDS = 4, 12


@pytest.fixture(autouse=True)
def _often_another_thread():
    """Python changes threads every 10 us instead of every 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work) -> list:
    """What `work(thread)` gives, in four threads that start together."""
    start = threading.Barrier(THREADS)

    def begin(thread: int):
        start.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


@pytest.mark.parametrize("training", [False, True])
def test_an_object_each_on_one_model(make_net, training):
    net = make_net("residual").train(training)
    net.layer3.eval()
    before = {name: module.training for name, module in net.named_modules()}
    images = torch.randn(THREADS, 3, 64, 64, generator=torch.Generator().manual_seed(0)).split(1)
    layers = [net.layer1, net.layer2, net.layer3, net.layer1]
    expected = [HolisticCAM(net, [layer], **SMALL)(image) for layer, image in zip(layers, images, strict=True)]

    def work(thread: int) -> list:
        cam = HolisticCAM(net, [layers[thread]], **SMALL)
        return [cam(images[thread]) for _ in range(ROUNDS)]

    for maps, reference in zip(in_threads(work), expected, strict=True):
        assert all(np.array_equal(saliency_map, reference) for saliency_map in maps)
    assert {name: module.training for name, module in net.named_modules()} == before
    assert not any(module._forward_hooks for module in net.modules())


def test_one_object_in_all_threads(net):
    images = torch.randn(THREADS, 3, 64, 64, generator=torch.Generator().manual_seed(0)).split(1)
    cam = HolisticCAM(net, [net.layer2], **SMALL)
    expected = [cam(image) for image in images]
    for maps, reference in zip(
        in_threads(lambda thread: [cam(images[thread]) for _ in range(ROUNDS)]), expected, strict=True
    ):
        assert all(np.array_equal(saliency_map, reference) for saliency_map in maps)


def test_a_pass_of_another_thread_is_not_recorded(net, images):
    """It comes in the middle of ours, and is as if nobody watched."""
    found: list[Tensor] = []

    class Meanwhile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not found:
                found.append(x)
                other = threading.Thread(target=lambda: found.append(net(torch.zeros_like(images))))
                other.start()
                other.join()
            return x

    capture = Capture(net, [net.layer1, net.layer3])
    capture(images)
    expected = [maps.clone() for maps in capture.activations]
    plain = net(torch.zeros_like(images))
    net.layer1.insert(0, Meanwhile())
    capture(images)
    assert all(torch.equal(*pair) for pair in zip(capture.activations, expected, strict=True))
    assert torch.equal(found[1], plain)
    assert found[1].requires_grad  # of its parameters, as in any thread


def test_threads_wait_for_one_another_in_evaluation_mode(net):
    net.train()
    order: list[str] = []
    inside, other_waits = threading.Event(), threading.Event()

    def first() -> None:
        with eval_mode(net):
            inside.set()
            other_waits.wait(60)
            order.append("first")
        order.append("left")

    other = threading.Thread(target=first)
    other.start()
    inside.wait(60)
    other_waits.set()
    with eval_mode(net):
        order.append("second")
        assert not any(module.training for module in net.modules())
    other.join()
    assert order.index("first") < order.index("second")
    assert all(module.training for module in net.modules())


def test_a_with_block_does_not_keep_other_threads_from_the_model(net, images):
    expected = HolisticCAM(net, [net.layer2], **SMALL)(images)
    net.train()
    found = []
    with HolisticCAM(net, [net.layer2], **SMALL) as cam:
        other = threading.Thread(target=lambda: found.append(HolisticCAM(net, [net.layer2], **SMALL)(images)))
        other.start()
        other.join()
        assert not net.training
        assert np.array_equal(cam(images), expected)
    assert np.array_equal(found[0], expected)
    assert all(module.training for module in net.modules())


def test_evaluation_mode_inside_evaluation_mode(net):
    net.train()
    with eval_mode(net):
        net.train()  # the user's own choice, in a `with` block of theirs
        with eval_mode(net):
            assert not net.training
        assert net.training
    assert all(module.training for module in net.modules())


def test_compiled_modules_are_eager_until_the_last_pass_ends():
    from torch._dynamo import eval_frame

    from holistic_cam_plugin.passes.model_state import uncompiled

    before = eval_frame._stance
    first, second = uncompiled(), uncompiled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert eval_frame._stance == before
