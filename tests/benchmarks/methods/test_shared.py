"""Competing methods, with options that make them fast: form of the maps, determinism, and no side effects.

LeGrad needs a transformer and is tested on its own.
"""

from __future__ import annotations

from functools import partialmethod

import numpy as np
import pytest
from torch import nn

from benchmarks.methods import EMP, IGOS, MSGCAM, RISE, NormGrad
from tests.baselines import test_attribution as shared

QUICK = {
    EMP: {"iterations": 3, "mask_size": 8},
    IGOS: {"iterations": 2, "path_steps": 3, "mask_size": 8},
    MSGCAM: {"scales": (1, 1.5), "groups": 4},
    NormGrad: {},
    RISE: {"num_masks": 40, "batch_size": 16},
}
net, images, targets = shared.net, shared.images, shared.targets  # fixtures


@pytest.fixture(params=QUICK, ids=lambda method: method.__name__)
def method(request):
    build = partialmethod(request.param.__init__, **QUICK[request.param])
    return type(request.param.__name__, (request.param,), {"__init__": build})


class TestForm(shared.TestForm):
    pass


class TestSideEffects(shared.TestSideEffects):
    pass


def test_wrapped_models(method, net, images):
    expected = method(net, [net.layer3])(images)
    np.testing.assert_array_equal(method(nn.DataParallel(net), [net.layer3])(images), expected)
