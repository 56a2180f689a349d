from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin import HolisticCAM, evidence, fuse_evidence
from holistic_cam_plugin.method.evidence import scaled_gradients
from holistic_cam_plugin.method.variation import gradient_variation

SIZES = [64, 96, 140]
SMALL = {"sizes": SIZES}
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]


def literal(model: nn.Module, layer: nn.Module, image: Tensor, category: int) -> np.ndarray:
    """Images to a map, in float64: every channel twice, P and N summed one by one, the mask by OpenCV in float64."""
    means = {name: [] for name in ("a+", "a-", "w+", "w-")}
    for scale, side in enumerate(SIZES):
        scaled = F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
        score = model(scaled)[0, category]
        handle.remove()
        (activation,) = kept
        (gradient,) = torch.autograd.grad(score, activation)
        if scale == 0:
            reached = [channel[channel != 0] for channel in gradient[0]]
            constant = sum(float(g.sum()) ** 2 / len(g) for g in reached if len(g))
            variation = 1 - constant / float((gradient**2).sum())
        weights = gradient * (gradient.shape[2] * gradient.shape[3]) ** 0.5
        parts = {"a+": activation, "a-": -activation, "w+": weights, "w-": -weights}
        for name, part in parts.items():
            canvas = F.interpolate(part.detach().relu(), size=image.shape[2:], mode="bilinear", align_corners=False)
            means[name].append(canvas[0].numpy())
    a, b, w, u = (np.mean(means[name], axis=0) for name in ("a+", "a-", "w+", "w-"))
    positive, negative = (a * w + b * u).sum(axis=0), (a * u + b * w).sum(axis=0)
    total = positive + negative
    share = np.divide(positive, total, out=np.zeros_like(total), where=total > 0)
    fused = positive * share ** (1 - variation)
    cut = np.minimum(fused, (fused.max() + fused.min()) / 2)
    box = int(image.shape[2] * 91 / 224) // 2 * 2 + 1
    masked = fused * cv2.blur(cut, (box, box))
    return (masked - masked.min()) / (masked.max() - masked.min())


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_the_class_equals_the_literal_method(any_net, images, layer):
    maps = HolisticCAM(any_net, [any_net.get_submodule(layer)], weighting="evidence", **SMALL)(images, TARGETS)
    double = copy.deepcopy(any_net).double()
    for module in double.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for image, saliency_map, target in zip(images, maps, TARGETS, strict=True):
        expected = literal(double, double.get_submodule(layer), image[None].double(), target.category)
        np.testing.assert_allclose(saliency_map, expected, atol=1 / 255)
        assert saliency_map.std() > 0.01


def test_evidence_for_one_sign_is_evidence_against_the_other():
    generator = torch.Generator().manual_seed(0)
    scales = [(5, 7, 6), (5, 12, 10)]
    activations, weights = ([torch.randn(scale, generator=generator) for scale in scales] for _ in range(2))
    positive, negative = evidence(activations, weights, (20, 18))
    swapped = evidence(activations, [-w for w in weights], (20, 18))
    torch.testing.assert_close(swapped, (negative, positive))
    assert (positive >= 0).all()
    assert (negative >= 0).all()


def test_where_the_gradient_varies_the_map_is_the_evidence_for_the_class():
    generator = torch.Generator().manual_seed(0)
    activations, gradients = torch.rand(2, 4, 8, 8, generator=generator)
    gradients -= gradients.mean(dim=(1, 2), keepdim=True)
    assert float(gradient_variation(gradients[None])) == pytest.approx(1, abs=1e-6)
    fused = fuse_evidence([activations], [gradients], (8, 8))
    torch.testing.assert_close(fused, (activations * gradients.relu()).sum(dim=0), rtol=1e-4, atol=1e-6)


def test_where_it_is_constant_the_map_is_the_evidence_times_its_share():
    activations = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    gradients = torch.tensor([1.0, 2.0, -1.0, -3.0]).view(4, 1, 1).expand(4, 8, 8)
    positive, negative = activations[0] + 2 * activations[1], activations[2] + 3 * activations[3]
    fused = fuse_evidence([activations], [gradients.contiguous()], (8, 8))
    torch.testing.assert_close(fused, positive**2 / (positive + negative), rtol=1e-4, atol=1e-6)


def test_scales_are_weighed_by_the_root_of_their_positions():
    gradients = torch.randn(2, 3, 4, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scaled_gradients(torch.zeros_like(gradients), gradients), gradients * 6)


@pytest.mark.parametrize("factor", [0.1, 10, 1e3])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_the_scale_of_the_logits_is_of_no_matter(any_net, images, layer, factor):
    cam = HolisticCAM(any_net, [any_net.get_submodule(layer)], weighting="evidence", **SMALL)
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


def test_options_of_the_mask(net, images):
    options = {"weighting": "evidence", "batch_size": 2, **SMALL}
    maps = HolisticCAM(net, [net.layer2], **options)(images, TARGETS)
    ((one, _),) = HolisticCAM(net, [net.layer2], fsd=False, **options).intermediates(images, TARGETS)
    assert one.mask is None
    assert abs(one.saliency_map - maps[0]).max() > 0.01
    for own in ({"blur_size": 9}, {"ksize": 5}, {"mask_power": 2}):
        assert abs(HolisticCAM(net, [net.layer2], **own, **options)(images, TARGETS) - maps).max() > 0.01, own
    eigen = HolisticCAM(net, [net.layer2], **options)(images, TARGETS, eigen_smooth=True)
    assert np.isfinite(eigen).all()
    assert abs(eigen - maps).max() > 0.01
