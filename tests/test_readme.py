"""The README's Python examples run as they are written, and what it refers to exists."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn
from torchvision.models import detection, segmentation

import holistic_cam_plugin
from holistic_cam_plugin.demo import load_demo_model

# The snippets' pyramids, small.
SMALL = holistic_cam_plugin.HolisticCAM.__init__.__kwdefaults__ | {"sizes": [64, 96]}
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def segmenter() -> nn.Module:
    model = segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=8).eval()
    model.classifier[-1].bias.data[5] = 10.0  # the class that the snippet explains is somewhere
    return model


def detector() -> nn.Module:
    backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return detection.FasterRCNN(backbone, 5, box_score_thresh=0.0).eval()


def transformer() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, dynamic_img_size=True, dynamic_img_pad=True
    ).eval()


# By a word of the snippet: the model that its text speaks of. All others explain the bundled one.
MODELS = {"SemanticSegmentationTarget": segmenter, "FasterRCNN": detector, "vit_reshape_transform": transformer}


def test_snippets_run_in_order(monkeypatch):
    monkeypatch.setattr(holistic_cam_plugin.HolisticCAM.__init__, "__kwdefaults__", SMALL)
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) >= 6
    assert all(any(word in snippet for snippet in snippets) for word in MODELS)
    torch.manual_seed(0)
    names = {
        "torch": torch,
        "model": load_demo_model(),
        "input_tensor": torch.randn(1, 3, 64, 64),
        "picture": np.random.default_rng(0).random((64, 64, 3), dtype=np.float32),
    }
    for snippet in snippets:
        for word, build in MODELS.items():
            if word in snippet:
                own = names | {"model": build()}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # random networks lose their boxes, or find no evidence
                    exec(snippet, own)
                assert own["maps"].shape == (1, 64, 64)
                break
        else:
            exec(snippet, names)
    assert names["maps"].shape == (1, 64, 64)
    assert names["overlay"].shape == (64, 64, 3)
    for score in ("over_all", "inside", "road", "drop"):
        assert names[score].shape == (1,), score


def test_links_and_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    stages = README[README.index("Each stage is a pure function") :].split("\n\n")[0]
    for name in re.findall(r"`(\w+)`", stages):
        assert hasattr(holistic_cam_plugin, name), name
