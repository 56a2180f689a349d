"""CAM against the paper's equation, torchcam's CAM and pytorch-grad-cam's Grad-CAM; other models are rejected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F
from torchcam import methods as torchcam

from holistic_cam_plugin.baselines.cam import CAM
from tests.conftest import min_max

TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(4)]
FAMILIES = [("resnet18", "layer4"), ("mobilenet_v2", "features.18"), ("squeezenet1_1", "features.12")]


def convolutional_head(relu: bool) -> nn.Module:
    """A classifier of every position, averaged afterwards, as in SqueezeNet."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU())
    after = [nn.ReLU(inplace=True)] if relu else []
    return nn.Sequential(body, nn.Dropout(), nn.Conv2d(8, 5, 1), *after, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def raw_maps(model: nn.Module, layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return CAM(model, [layer]).compute_maps(images, TARGETS)[0]


def assert_is_grad_cam(model: nn.Module, layer: nn.Module, images: torch.Tensor) -> None:
    positive = raw_maps(model, layer, images).relu()
    assert positive.amax() > 0
    scaled = positive / positive.amax(dim=(1, 2), keepdim=True).clamp(min=1e-20)
    with GradCAM(model, [layer]) as cam:
        expected = cam(images, TARGETS)
    # pytorch-grad-cam scales a map to [0, 1] before and after resizing.
    ours = scale_cam_image(scale_cam_image(scaled.numpy(), images.shape[:1:-1]))
    np.testing.assert_allclose(ours, expected, atol=2e-4)


def test_the_paper_s_sum(net, images):
    activations = net.layer3(net.layer2(net.layer1(images))).detach().double().numpy()
    weights = net.head[2].weight.detach().double().numpy()
    maps = CAM(net, [net.layer3])(images, TARGETS)
    for saliency_map, activation, category in zip(maps, activations, (1, 4), strict=True):
        small = sum(weights[category, k] * activation[k] for k in range(len(activation)))
        large = F.interpolate(torch.tensor(small)[None, None], (64, 64), mode="bilinear", align_corners=False)[0, 0]
        np.testing.assert_allclose(saliency_map, min_max(large.numpy()), atol=1e-5)


def test_torchcam(net, images):
    with torchcam.CAM(net, "layer3", fc_layer="head.2") as extractor:
        (expected,) = extractor([1, 4], net(images))
    for saliency_map, other in zip(raw_maps(net, net.layer3, images), expected, strict=True):
        np.testing.assert_allclose(min_max(saliency_map.numpy()), other, atol=1e-5)


def test_grad_cam(net, images):
    assert_is_grad_cam(net, net.layer3, images)


@pytest.mark.parametrize("relu", [False, True])
def test_classifiers_of_every_position(relu, images):
    model = convolutional_head(relu)
    assert_is_grad_cam(model, model[0], images)
    if not relu:
        positions = model[2](model[0](images)) - model[2].bias.view(-1, 1, 1)
        expected = torch.stack([positions[0, 1], positions[1, 4]])
        torch.testing.assert_close(raw_maps(model, model[0], images), expected.detach())


@pytest.mark.parametrize(("name", "layer"), FAMILIES)
def test_families(name, layer, images):
    torch.manual_seed(1)
    model = getattr(torchvision.models, name)(num_classes=10).eval()
    assert_is_grad_cam(model, model.get_submodule(layer), images)


def test_targets_that_weigh_several_classes(net, images):
    difference = [lambda output: output[1] - 2 * output[3]] * 2
    result = CAM(net, [net.layer3]).compute_maps(images, difference)[0]
    first, second = (
        CAM(net, [net.layer3]).compute_maps(images, [ClassifierOutputTarget(category)] * 2)[0] for category in (1, 3)
    )
    torch.testing.assert_close(result, first - 2 * second)


@pytest.mark.parametrize("layer", ["layer2", "layer3.0"])
def test_layers_that_are_not_averaged_next(net, images, layer):
    with pytest.raises(ValueError, match="CAM needs a model that averages the target layer"):
        CAM(net, [net.get_submodule(layer)])(images)


def test_models_of_another_structure(images):
    model = torchvision.models.vgg11(num_classes=10).eval()
    with pytest.raises(ValueError, match="or use Grad-CAM"):
        CAM(model, [model.features[-1]])(images)


def test_several_layers_give_the_mean_of_their_maps(net, images):
    # The identity behind the last layer is averaged as well.
    net.layer3 = nn.Sequential(net.layer3, nn.Identity())
    both = CAM(net, [net.layer3[0], net.layer3])(images, TARGETS)
    np.testing.assert_allclose(both, CAM(net, [net.layer3])(images, TARGETS), atol=1e-5)
