"""The rivals under their names, and methods that look at no layer."""

from __future__ import annotations

import numpy as np
import pytest
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin.baselines.by_name import METHODS, display_name, layer_maps, method_key
from holistic_cam_plugin.baselines.normgrad import NormGrad
from holistic_cam_plugin.baselines.rise import RISE

NAMES = ["RISE", "NormGrad", "MSG-CAM", "EMP", "I-GOS", "CAM", "CAMERAS"]
TARGETS = [[ClassifierOutputTarget(0), ClassifierOutputTarget(2)], [ClassifierOutputTarget(1)]]


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert display_name(method_key(name)) == name


def test_maps_in_every_layer(net, images):
    maps = layer_maps("normgrad", net, [net.layer1, net.layer3], images, TARGETS)
    assert [one.shape for one in maps] == [(3, 64, 64)] * 2
    for layer, some in zip((net.layer1, net.layer3), maps, strict=True):
        expected = NormGrad(net, [layer])(images, [TARGETS[0][1], TARGETS[1][0]])
        np.testing.assert_allclose(some[1:], expected, atol=1e-5)


def test_methods_without_a_layer_run_once(net, images, seen, monkeypatch):
    class Quick(RISE):
        def __init__(self, model):
            super().__init__(model, num_masks=8, batch_size=8)

    monkeypatch.setitem(METHODS, "rise", Quick)
    shapes = seen(net)
    maps = layer_maps("rise", net, [net.layer1, net.layer3], images, TARGETS)
    assert len(shapes) == 3  # one batch of masked copies a target
    assert [one.shape for one in maps] == [(3, 64, 64)] * 2
    np.testing.assert_array_equal(*maps)
    np.testing.assert_array_equal(maps[0][2:], Quick(net)(images[1:], TARGETS[1]))
