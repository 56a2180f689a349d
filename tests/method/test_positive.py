from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin import HolisticCAM

SMALL = {"sizes": [64, 96, 140]}
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]


@pytest.mark.parametrize("factor", [0.1, 10, 1e3])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_the_scale_of_the_logits_is_of_no_matter(any_net, images, layer, factor):
    cam = HolisticCAM(any_net, [any_net.get_submodule(layer)], weighting="positive", **SMALL)
    expected = cam(images, TARGETS)
    with torch.no_grad():
        any_net.head[-1].weight *= factor
        any_net.head[-1].bias *= factor
    np.testing.assert_allclose(cam(images, TARGETS), expected, atol=1e-4)


def test_the_scale_of_the_logits_matters_to_the_papers_weights(net, images):
    cam = HolisticCAM(net, [net.layer1], **SMALL)
    expected = cam(images, TARGETS)
    with torch.no_grad():
        net.head[-1].weight *= 10
    assert abs(cam(images, TARGETS) - expected).max() > 0.01
