"""The bundled classifier: a small residual network for scenes of digits."""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from holistic_cam_plugin.demo.sources import CLASSES

__all__ = ["WEIGHTS", "DigitsResNet", "load_demo_model"]

WEIGHTS = "digits_resnet.pt"

_WIDTHS = (24, 40, 64, 80)  # channels of the four stages; 209,000 parameters


class DigitsResNet(nn.Module):
    """A ResNet with one block per stage; `layer1` to `layer4` have the strides 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        stem, *_ = _WIDTHS
        self.conv1 = nn.Conv2d(3, stem, kernel_size=5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _build_stage(stem, _WIDTHS[0], stride=1)
        self.layer2 = _build_stage(_WIDTHS[0], _WIDTHS[1], stride=2)
        self.layer3 = _build_stage(_WIDTHS[1], _WIDTHS[2], stride=2)
        # A total stride of 32, as in torchvision's ResNets, is accurate enough even at 112 px.
        self.layer4 = _build_stage(_WIDTHS[2], _WIDTHS[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_WIDTHS[3], CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits `(B, 10)` of images `(B, 3, H, W)` of any size."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def load_demo_model() -> DigitsResNet:
    """Load the trained network, in evaluation mode on the CPU, in float32."""
    model = DigitsResNet()
    with resources.files(__package__).joinpath(WEIGHTS).open("rb") as file:
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return model.eval()


def _build_stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut))
