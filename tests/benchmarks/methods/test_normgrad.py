"""NormGrad: outer products one by one, the virtual identity that they come from, and several layers."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F

from benchmarks.methods.normgrad import NormGrad, spatial_contributions
from tests.conftest import hooked_pass, min_max

CATEGORIES = (1, 4)
TARGETS = [ClassifierOutputTarget(category) for category in CATEGORIES]


def literal(net, layer, image, category) -> np.ndarray:
    (((activations,), (gradients,)),) = hooked_pass(net, [layer], image, category)
    rows, columns = activations.shape[1:]
    return np.array(
        [
            [np.linalg.norm(np.outer(gradients[:, y, x], activations[:, y, x])) for x in range(columns)]
            for y in range(rows)
        ]
    )


def on_canvas(small: np.ndarray) -> np.ndarray:
    return F.interpolate(torch.tensor(small)[None, None], (64, 64), mode="bilinear", align_corners=False)[0, 0].numpy()


def test_outer_products(any_net, images):
    maps = NormGrad(any_net, [any_net.layer2])(images, TARGETS)
    for image, category, saliency_map in zip(images.split(1), CATEGORIES, maps, strict=True):
        expected = min_max(on_canvas(literal(any_net, "layer2", image, category)))
        np.testing.assert_allclose(saliency_map, expected, atol=1e-5)


def test_contributions_to_the_weights_of_a_virtual_identity(net, images):
    identity = nn.Conv2d(8, 8, 1, bias=False)
    identity.weight.data = torch.eye(8)[..., None, None]
    plain = net.layer2
    activations = plain(net.layer1(images[:1])).detach()
    net.layer2 = nn.Sequential(plain, identity)
    net(images[:1])[0, 1].backward()

    behind = activations.clone().requires_grad_()
    net.head(net.layer3(behind))[0, 1].backward()
    outer = torch.einsum("byhw,bxhw->yxhw", behind.grad, activations)
    torch.testing.assert_close(outer.sum(dim=(2, 3)), identity.weight.grad[..., 0, 0])
    norms = outer.square().sum(dim=(0, 1)).sqrt()
    torch.testing.assert_close(spatial_contributions(activations, behind.grad)[0], norms)


def test_several_layers_give_their_geometric_mean(net, images):
    maps = NormGrad(net, [net.layer1, net.layer3])(images[:1], TARGETS[:1])
    first, second = (on_canvas(literal(net, layer, images[:1], 1)) for layer in ("layer1", "layer3"))
    np.testing.assert_allclose(maps[0], min_max(np.sqrt(first * second)), atol=1e-4)
