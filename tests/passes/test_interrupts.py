"""Ctrl-C at any moment: nothing of the user's stays changed."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import _len_torch_function_stack

from holistic_cam_plugin import HolisticCAM, explainable
from holistic_cam_plugin.passes import interrupts, model_state
from holistic_cam_plugin.passes.interrupts import uninterrupted, uninterruptible
from holistic_cam_plugin.passes.model_state import copy_inputs, eval_mode

SMALL = {"sizes": [64, 80]}
ROUNDS = 300


class Interrupter:
    """Sends SIGINT to this process at the n-th call or return of a function, of Python's or of C."""

    def __init__(self, moment: int | None) -> None:
        self.moment, self.count = moment, 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count == self.moment:
            signal.raise_signal(signal.SIGINT)

    def run(self, work: Callable[[], object]) -> bool:
        """Whether `work` was interrupted."""
        sys.setprofile(self)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


def user_state(model: nn.Module) -> dict[str, Any]:
    """What a call must leave as it is."""
    return {
        "training": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "function modes": _len_torch_function_stack(),
        "stance": torch._dynamo.eval_frame._stance.stance,
        "handlers": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "module state": (list(model_state._stances), interrupts._entered, list(interrupts._waiting)),
        "lock": model_state.model_lock(model)._is_owned(),  # type: ignore[attr-defined]
    }


def call(net: nn.Module) -> None:
    HolisticCAM(net, [net.layer1, net.layer3], amp=True, **SMALL)(torch.rand(1, 3, 64, 64))


def call_in_with_block(net: nn.Module) -> None:
    with HolisticCAM(net, [net.layer2], **SMALL) as cam:
        cam(torch.rand(1, 3, 64, 64))


def call_under_inference_mode(net: nn.Module) -> None:
    with uninterrupted(torch.inference_mode()):
        HolisticCAM(net, [net.layer2], **SMALL)(torch.rand(1, 3, 64, 64))


def probe(net: nn.Module) -> None:
    explainable(net, size=(64, 64))


def copy_inputs_in_evaluation_mode(net: nn.Module) -> None:
    with eval_mode(net), copy_inputs(net):
        net(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("work", "rounds"),
    [
        (call, ROUNDS),
        (call_in_with_block, ROUNDS // 3),
        (call_under_inference_mode, ROUNDS // 3),
        (copy_inputs_in_evaluation_mode, ROUNDS // 3),
        (probe, ROUNDS // 10),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_interrupt_at_any_moment_leaves_nothing_changed(make_net, work, rounds):
    import torch._dynamo  # noqa: F401 (what it sets is restored, too)

    net = make_net("residual").train()
    net.layer3.eval()
    work(net)
    count = Interrupter(None)
    assert not count.run(lambda: work(net))
    before = user_state(net)
    draw = random.Random(0)
    interrupted = 0
    for _ in range(rounds):
        moment = draw.randrange(1, count.count)
        interrupted += Interrupter(moment).run(lambda: work(net))
        assert user_state(net) == before, f"interrupted at call or return {moment} of {count.count}"
    assert interrupted > 0.9 * rounds  # the rest came when the call was over, or where Python cannot raise
    gc.collect()
    assert user_state(net) == before


class BrokenError(Exception):
    pass


@contextmanager
def logged(log: list[str], interrupt: str = "") -> Iterator[None]:
    def note(word: str) -> None:
        if word == interrupt:
            signal.raise_signal(signal.SIGINT)
        log.append(word)

    note("enter")
    try:
        yield
    finally:
        note("exit")


def test_an_interrupt_while_it_enters_comes_when_it_has_left_again():
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(logged(log, "enter")):
        log.append("body")
    assert log == ["enter", "exit"]


def test_an_interrupt_while_it_leaves_comes_afterwards():
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(logged(log, "exit")):
        log.append("body")
    assert log == ["enter", "body", "exit"]


def test_an_interrupt_of_the_body_comes_at_once():
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(logged(log)):
        log.append(f"not reached: {signal.raise_signal(signal.SIGINT)}")
    assert log == ["enter", "exit"]


def test_an_interrupt_while_an_inner_one_enters_waits_for_the_outer_one():
    log: list[str] = []

    @contextmanager
    def outer() -> Iterator[None]:
        with uninterrupted(logged(log, "enter")):
            log.append("inner body")
            yield

    with pytest.raises(KeyboardInterrupt), uninterrupted(outer()):
        log.append("body")
    assert log == ["enter", "inner body", "exit"]


def test_all_signals_with_a_handler_in_python_wait_and_each_is_delivered():
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:

        @uninterruptible
        def work() -> list[int]:
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGINT)
            return list(received)

        with pytest.raises(KeyboardInterrupt), uninterrupted(logged([])):
            work()
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_is_set_in_the_body_stays():
    mine, before = lambda *_: None, signal.getsignal(signal.SIGINT)
    try:
        with uninterrupted(logged([])):
            signal.signal(signal.SIGINT, mine)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_of_the_body_and_of_the_context_manager_propagate():
    log: list[str] = []
    with pytest.raises(BrokenError), uninterrupted(logged(log)):
        raise BrokenError
    assert log == ["enter", "exit"]

    @contextmanager
    def refuse() -> Iterator[None]:
        raise BrokenError
        yield

    with pytest.raises(BrokenError), uninterrupted(refuse()):
        pass
    assert interrupts._entered == 0


def test_in_other_threads_it_is_the_context_manager_itself():
    log: list[str] = []
    handler = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with uninterrupted(logged(log)):
            log.append(str(signal.getsignal(signal.SIGINT) is handler))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert log == ["enter", "True", "exit"]


def test_maps_are_right_after_interrupts(net, images):
    expected = HolisticCAM(net, [net.layer2], **SMALL)(images)
    cam = HolisticCAM(net, [net.layer2], **SMALL)
    for moment in (500, 2000, 5000):
        Interrupter(moment).run(lambda: cam(images))
        assert np.array_equal(cam(images), expected)
