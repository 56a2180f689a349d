"""MSG-CAM against the module's formulas spelt out, and Group-CAM as its one-scale case."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional as F

from benchmarks.methods.msg_cam import MSGCAM, group_masks
from benchmarks.methods.perturbation import blur
from tests.conftest import hooked_pass, min_max


def bilinear(array: np.ndarray, size) -> np.ndarray:
    return F.interpolate(torch.tensor(array)[None], tuple(size), mode="bilinear", align_corners=False)[0].numpy()


def literal(net, layer, image, category, sizes, groups) -> np.ndarray:
    """The map of a square image, before it is scaled to [0, 1]; sizes are sides in pixels."""
    records = []
    for side in sizes:
        scaled = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
        ((activations, gradients),) = hooked_pass(net, [layer], scaled, category)
        records.append((activations[0].numpy(), gradients[0].numpy()))
    grid = records[-1][0].shape[1:]
    activations, gradients = (np.mean([bilinear(record[kind], grid) for record in records], axis=0) for kind in (0, 1))
    per_group = -(-len(activations) // groups)
    baseline = blur(image, 50, 51)

    def probability(x):
        return net(x).softmax(dim=1)[0, category].item()

    total = np.zeros(image.shape[2:])
    for first in range(0, len(activations), per_group):
        some = range(first, min(first + per_group, len(activations)))
        mask = np.maximum(sum(gradients[k].mean() * activations[k] for k in some), 0)
        threshold = np.sort(mask.ravel())[round(0.7 * mask.size) - 1]
        mask = bilinear(np.where(mask > threshold, mask, 0)[None], image.shape[2:])[0]
        if mask.max() > mask.min():
            mask = min_max(mask)
            kept = image * torch.tensor(mask) + baseline * (1 - torch.tensor(mask))
            total += (probability(kept) - probability(baseline)) * mask
    return np.maximum(total, 0)


@pytest.mark.parametrize(("scales", "sizes"), [((1,), (64,)), ((1, 1.5, 2), (64, 96, 128))])
@pytest.mark.parametrize("groups", [3, 32])
def test_spelt_out(net, make_images, scales, sizes, groups):
    image = make_images(1, seed=3)
    for category in range(6):
        expected = literal(net, "layer3", image, category, sizes, groups)
        if expected.max() > 0:
            break
    result = MSGCAM(net, [net.layer3], scales=scales, groups=groups)(image, [ClassifierOutputTarget(category)])[0]
    np.testing.assert_allclose(result, min_max(expected), atol=2e-3)


def test_no_evidence_gives_a_zero_map(net, images):
    # Nothing that is kept of the image raises a constant score.
    cam = MSGCAM(net, [net.layer3], scales=(1,), score=lambda outputs: outputs * 0)
    with pytest.warns(UserWarning, match="constant"):
        assert not cam(images[:1]).any()
    negative = MSGCAM(net, [net.layer3], scales=(1,))
    with pytest.warns(UserWarning, match="constant"):
        assert not negative(images[:1], [lambda output: -1e6 - output.abs().sum()]).any()


def test_no_activation_gives_a_zero_map(net, images):
    net.layer3[0].bias.data.fill_(-1e3)
    with pytest.warns(UserWarning, match="constant"):
        assert not MSGCAM(net, [net.layer3], scales=(1,))(images[:1]).any()


def test_masks_of_groups():
    activations = torch.arange(40.0).view(1, 4, 2, 5)
    gradients = torch.tensor([1.0, -1, 2, 0]).view(1, 4, 1, 1).expand(1, 4, 2, 5)
    masks = group_masks(activations, gradients, 2)
    assert masks.shape == (2, 1, 2, 5)
    assert not masks[0].any()  # the first channel is smaller than the second, which counts against the target
    expected = torch.zeros(10)
    expected[7:] = 2 * torch.tensor([27.0, 28, 29])  # the strongest three of ten positions
    torch.testing.assert_close(masks[1].flatten(), expected)


def test_fixed_size_models(images, net):
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            assert x.shape[-1] == 64, "64 pixels"
            return self.net(x)

    model = Fixed()
    with pytest.raises(AssertionError, match="64 pixels"):
        MSGCAM(model, [net.layer3])(images)
    assert MSGCAM(model, [net.layer3], scales=(1,))(images).shape == (2, 64, 64)


@pytest.mark.parametrize("scales", [(), (0.5, 1), (float("nan"),), (float("inf"),), 2, "12", ("2",)])
def test_refused(net, scales):
    with pytest.raises(ValueError, match="scales must be factors of at least 1"):
        MSGCAM(net, [net.layer3], scales=scales)
    with pytest.raises(ValueError, match="groups must be at least 1"):
        MSGCAM(net, [net.layer3], groups=0)
