"""A segmentation network, a detector and a vision transformer of torchvision and timm, trained in minutes.

All three use the frozen trunk of the bundled classifier of digits and are trained on scenes of two digits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation._utils import _SimpleSegmentationModel
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign
from tqdm import tqdm

from holistic_cam_plugin.demo import (
    CLASSES,
    SCENE_SIZE,
    DigitsResNet,
    Scene,
    Split,
    load_demo_model,
    make_scene,
    preprocess,
)

__all__ = ["TASKS", "Samples", "draw_samples", "train"]

BACKGROUND = 0  # digit d is class d + 1 in segmentation and detection
_BATCH = 16
_DECAY = 0.05
# Weight in the segmentation loss: the background has 15 times the pixels of the digits.
_BACKGROUND_WEIGHT = 0.3
_BOX_SCORE = 0.05  # minimum score of boxes
_FPN_WIDTH, _ROI, _HIDDEN = 64, 6, 128
_ANCHORS = ((32, 48), (64, 80), (96, 112))  # px, for three maps of the pyramid; digits are 32 to 94 px high
_ASPECTS = (1.0, 1.6)  # height over width


class Samples(NamedTuple):
    """Scenes with two digits each.

    Attributes:
        images: `(N, 3, H, W)`, uint8.
        masks: `(N, H, W)`, int64, class of the digit + 1, 0 for the background.
        labels: `(N, 2)`, int64, classes of the digits.
        boxes: `(N, 2, 4)`, float32, x0, y0, x1, y1 in pixels.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    boxes: Tensor

    def batch(self, chosen: Tensor) -> tuple[Tensor, Samples]:
        """Return the models' input, `(B, 3, H, W)`, float32, and the chosen samples."""
        some = Samples(*(values[chosen] for values in self))
        return preprocess((some.images / 255).numpy()), some


def draw_samples(split: Split, count: int, size: int = SCENE_SIZE) -> Samples:
    """Draw the first `count` scenes of the split."""
    scenes = [
        make_scene([1, n], split, size, digits=2) for n in tqdm(range(count), split, disable=not sys.stderr.isatty())
    ]
    return Samples(
        torch.from_numpy(np.stack([(scene.image * 255).round().astype(np.uint8) for scene in scenes])),
        torch.from_numpy(np.stack([_make_mask(scene) for scene in scenes])),
        torch.tensor([scene.labels for scene in scenes]),
        torch.tensor([scene.boxes for scene in scenes], dtype=torch.float32),
    )


def _make_mask(scene: Scene) -> NDArray[np.int64]:
    inked = (scene.image != scene.backdrop).any(axis=0)
    mask = np.full(inked.shape, BACKGROUND, np.int64)
    for label, (x0, y0, x1, y1) in zip(scene.labels, scene.boxes, strict=True):
        mask[y0:y1, x0:x1] = np.where(inked[y0:y1, x0:x1], label + 1, BACKGROUND)
    return mask


def _count_channels(trunk: DigitsResNet) -> list[int]:
    """Count the channels of the four stages."""
    stages = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
    return [cast(BasicBlock, stage[0]).conv2.out_channels for stage in stages]


class _Hypercolumns(nn.Module):
    """Concatenates all four stages at a stride of 4, under the name that torchvision's heads use."""

    def __init__(self, trunk: DigitsResNet) -> None:
        super().__init__()
        self.body = IntermediateLayerGetter(trunk, {f"layer{n}": f"{n}" for n in range(1, 5)})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = list(self.body(images).values())
        size = stages[0].shape[-2:]
        return {"out": torch.cat([F.interpolate(maps, size, mode="bilinear") for maps in stages], dim=1)}


def build_segmenter(trunk: DigitsResNet) -> nn.Module:
    """Build an FCN of stride 4: `(B, 3, H, W)` to `{"out": (B, 11, H, W)}`."""
    model: nn.Module = _SimpleSegmentationModel(_Hypercolumns(trunk), FCNHead(sum(_count_channels(trunk)), CLASSES + 1))
    return model


def build_detector(trunk: DigitsResNet) -> FasterRCNN:
    """Build a Faster R-CNN with a feature pyramid of strides 8 to 64: list of images to list of dicts."""
    names = {f"layer{n}": str(k) for k, n in enumerate((2, 3, 4))}
    backbone = BackboneWithFPN(trunk, names, _count_channels(trunk)[1:], _FPN_WIDTH)
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator((*_ANCHORS, (128, 160)), (_ASPECTS,) * 4),
        box_roi_pool=MultiScaleRoIAlign(
            ["0", "1", "2"], _ROI, sampling_ratio=2, canonical_scale=112, canonical_level=4
        ),
        box_head=TwoMLPHead(_FPN_WIDTH * _ROI**2, _HIDDEN),
        box_predictor=FastRCNNPredictor(_HIDDEN, CLASSES + 1),
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
        box_detections_per_img=20,
        box_score_thresh=_BOX_SCORE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,  # done by preprocess()
    )
    # Its transform would resize all scales of the pyramid to one size; `_skip_resize` has an effect only in training.
    model.transform.resize = lambda image, target: (image, target)
    return model


def build_transformer(trunk: DigitsResNet) -> VisionTransformer:
    """Build a ViT on patches of 16 px, embedded by the trunk's first three stages: `(B, 3, H, W)` to `(B, 10)`."""
    stages = nn.Sequential(*list(trunk.children())[:7])
    return VisionTransformer(
        img_size=SCENE_SIZE,
        patch_size=1,
        embed_layer=partial(HybridEmbed, backbone=stages),
        embed_dim=96,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
        num_classes=CLASSES,
        dynamic_img_size=True,
    )


def _compute_segmentation_loss(model: Any, images: Tensor, samples: Samples) -> Tensor:
    weights = torch.tensor([_BACKGROUND_WEIGHT, *[1.0] * CLASSES])
    return F.cross_entropy(model(images)["out"], samples.masks, weight=weights)


def _compute_detection_loss(model: Any, images: Tensor, samples: Samples) -> Tensor:
    truth = [
        {"boxes": boxes, "labels": digits + 1} for boxes, digits in zip(samples.boxes, samples.labels, strict=True)
    ]
    losses: dict[str, Tensor] = model(list(images), truth)
    return torch.stack(list(losses.values())).sum()


def _compute_presence_loss(model: Any, images: Tensor, samples: Samples) -> Tensor:
    present = torch.zeros(len(images), CLASSES).scatter_(1, samples.labels, 1.0)
    return F.binary_cross_entropy_with_logits(model(images), present)


class _Task(NamedTuple):
    build: Callable[[DigitsResNet], nn.Module]
    loss: Callable[[Any, Tensor, Samples], Tensor]
    steps: int
    rate: float


TASKS = {
    "segmentation": _Task(build_segmenter, _compute_segmentation_loss, 150, 1e-2),
    "detection": _Task(build_detector, _compute_detection_loss, 200, 3e-3),
    "ViT": _Task(build_transformer, _compute_presence_loss, 250, 2e-3),
}


def train(name: str, samples: Samples, steps: int | None = None, seed: int = 0) -> nn.Module:
    """Train the task's network for `steps` batches, and return it in evaluation mode.

    On the same machine, the same seed gives the same weights.
    """
    torch.manual_seed(seed)
    task = TASKS[name]
    steps = steps or task.steps
    trunk = load_demo_model().requires_grad_(False)
    model = task.build(trunk).train()
    for module in trunk.modules():  # some networks contain only its stages
        module.eval()
    heads = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(heads, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, total_steps=steps, pct_start=0.2)
    for _ in tqdm(range(steps), name, disable=not sys.stderr.isatty()):
        images, some = samples.batch(torch.randint(len(samples.images), (_BATCH,)))
        loss = task.loss(model, images, some)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(heads, 1.0)
        optimizer.step()
        schedule.step()
    # pytorch-grad-cam records gradients in the trunk's layers.
    return model.requires_grad_().eval()
