"""Where the time goes: told to whom asks, thread by thread, without a change of the maps."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.passes.clock import clocked, stage

CPU = torch.device("cpu")


def test_seconds_by_stage():
    with stage("before", CPU), clocked() as seconds:
        with stage("slow", CPU):
            time.sleep(0.05)
        for _ in range(2):
            with stage("twice", CPU):
                time.sleep(0.02)
        other = threading.Thread(target=lambda: stage("elsewhere", CPU).__enter__())
        other.start()
        other.join()
        with pytest.raises(KeyError), stage("failed", CPU):
            raise KeyError
    with stage("after", CPU):
        pass
    assert set(seconds) == {"slow", "twice", "failed"}
    assert seconds["slow"] >= 0.05
    assert seconds["twice"] >= 0.04


def test_the_stages_of_a_map(net, images):
    started = time.perf_counter()
    with clocked() as seconds:
        maps = HolisticCAM(net, [net.layer2], sizes=[64, 96])(images)
    assert set(seconds) == {"model", "fusing", "mask"}
    assert all(spent > 0 for spent in seconds.values())
    assert sum(seconds.values()) < time.perf_counter() - started
    with clocked() as seconds:
        HolisticCAM(net, [net.layer2], sizes=[64], fsd=False)(images)
    assert set(seconds) == {"model", "fusing"}
    np.testing.assert_array_equal(maps, HolisticCAM(net, [net.layer2], sizes=[64, 96])(images))
