from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection
from torchvision.ops import batched_nms, box_convert

from holistic_cam_plugin import (
    BoxScoreTarget,
    DETRDetections,
    HolisticCAM,
    YOLODetections,
    explainable,
    fpn_reshape_transform,
)

CLASSES = 3


class Cells(nn.Module):
    """A detector of one box per cell of 8 px; its scores depend on the brightness of the cell and its surroundings.

    Class 1 is bright, class 2 is dark, class 0 never occurs. As in YOLO, sides must be multiples of 32.
    """

    def __init__(self, form: str = "yolo") -> None:
        super().__init__()
        self.form = form
        self.features = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.ReLU())
        nn.init.constant_(self.features[0].weight[0], 1 / 192)
        nn.init.constant_(self.features[0].weight[1], -1 / 192)
        nn.init.zeros_(self.features[0].bias)

    def forward(self, images: Tensor):
        features = self.features(images)
        around = F.interpolate(F.avg_pool2d(features, 4), scale_factor=4)
        bright, dark = (torch.cat([features, around / 100], dim=1)[:, [0, 1]] * 8).flatten(2).unbind(1)
        logits = torch.stack([torch.full_like(bright, -9.0), bright, dark], dim=2) - 4  # (B, N, classes)
        height, width = features.shape[-2:]
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        boxes = torch.stack([columns / width, rows / height], dim=-1).reshape(1, -1, 2).expand(len(images), -1, 2)
        boxes = torch.cat([boxes, torch.full_like(boxes, 1 / 4)], dim=-1)  # cxcywh, relative
        scale = boxes.new_tensor([images.shape[-1], images.shape[-2]] * 2)
        if self.form == "detr":
            return {"logits": logits, "pred_boxes": boxes}
        if self.form == "yolo":
            return torch.cat([boxes * scale, logits.sigmoid()], dim=2).transpose(1, 2)
        best, labels = logits.sigmoid().max(dim=2)
        corners = box_convert(boxes * scale, "cxcywh", "xyxy")
        return [{"boxes": b, "labels": k, "scores": s} for b, k, s in zip(corners, labels, best, strict=True)]


def two_spots() -> Tensor:
    """A bright spot at the upper left and a dark spot at the lower right."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    spot = [torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 60) for cy, cx in ((28, 36), (68, 92))]
    return (spot[0] - spot[1]).expand(1, 3, 96, 128)


def detector(form: str) -> tuple[nn.Module, nn.Module]:
    model = Cells(form)
    wrapped = {
        "yolo": lambda m: YOLODetections(m, num_classes=CLASSES),
        "detr": lambda m: DETRDetections(m, "sigmoid"),
        "torchvision": lambda m: m,
    }
    return wrapped[form](model).eval(), model.features


FORMS = ("torchvision", "detr", "yolo")
OPTIONS = {"sizes": [96, 150, 200], "multiple_of": 32, "weighting": "positive"}


def picked(model: nn.Module, label: int) -> Tensor:
    """Apply non-maximum suppression and return the best box of the class, as a user would."""
    with torch.no_grad():
        (found,) = model(two_spots())
    kept = batched_nms(found["boxes"], found["scores"], found["labels"], 0.3)
    best = next(index for index in kept.tolist() if found["labels"][index] == label)
    return found["boxes"][best]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [1, 2])
def test_the_map_of_a_box_lies_in_the_box(form, label):
    model, layer = detector(form)
    box = picked(model, label)
    maps = HolisticCAM(model, [layer], **OPTIONS)(two_spots(), [BoxScoreTarget([box.tolist()], [label])])
    x0, y0, x1, y1 = box.round().int().tolist()
    assert maps[0, y0:y1, x0:x1].sum() > 0.9 * maps.sum()
    assert y0 <= np.unravel_index(maps[0].argmax(), (96, 128))[0] < y1


def test_all_forms_of_the_same_detections_give_the_same_map():
    maps = []
    for form in FORMS:
        model, layer = detector(form)
        maps.append(HolisticCAM(model, [layer], **OPTIONS)(two_spots(), [BoxScoreTarget([picked(model, 1)], [1])]))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_box_is_identified_at_every_scale(form):
    model, layer = detector(form)
    box, seen = picked(model, 1), []

    class Watched(BoxScoreTarget):
        def __call__(self, found):
            score = super().__call__(found)
            bright = (found["scores"].detach() * (found["labels"] == 1)).argmax()
            seen.append((found["boxes"][bright], float(score.detach())))
            return score

    HolisticCAM(model, [layer], **OPTIONS)(two_spots(), [Watched([box.tolist()], [1])])
    assert len(seen) == 3
    for best, score in seen:
        torch.testing.assert_close(best, box, atol=4, rtol=0)
        assert score > 0.5


def test_models_of_multiples_need_multiple_of():
    model, layer = detector("yolo")
    with pytest.raises(ValueError, match=r"takes images of 96x128 px but not the pyramid's 200x266 px"):
        HolisticCAM(model, [layer], sizes=[96, 200])(two_spots(), [BoxScoreTarget([picked(model, 1)], [1])])
    with pytest.raises(ValueError, match="97x128 px, which are no multiples of multiple_of=32: crop or pad it"):
        HolisticCAM(model, [layer], multiple_of=32)(torch.rand(1, 3, 97, 128))
    with pytest.raises(ValueError, match="multiple_of=32 excludes tiles=True"):
        HolisticCAM(model, [layer], multiple_of=32, tiles=True)


class Returns(nn.Module):
    def __init__(self, outputs, num_labels=None) -> None:
        super().__init__()
        self.outputs = outputs
        if num_labels:
            self.config = type("Config", (), {"num_labels": num_labels})

    def forward(self, images):
        return self.outputs


def test_a_yolo_by_hand():
    outputs = torch.tensor([[10.0, 20.0, 4.0, 8.0, 0.1, 0.7], [30.0, 40.0, 2.0, 2.0, 0.6, 0.2], [0.0] * 6]).T[None]
    for returned in (outputs, (outputs, "features"), [(outputs, "prototypes"), {}]):
        (found,) = YOLODetections(Returns(returned), num_classes=2)(torch.zeros(1, 3, 64, 64))
        assert found["boxes"].tolist() == [[8, 16, 12, 24], [29, 39, 31, 41], [0, 0, 0, 0]]
        assert found["labels"].tolist() == [1, 0, 0]
        torch.testing.assert_close(found["scores"], torch.tensor([0.7, 0.6, 0.0]))
    (found,) = YOLODetections(Returns(outputs), "xywh", 2)(torch.zeros(1, 3, 64, 64))
    assert found["boxes"][0].tolist() == [10, 20, 14, 28]


class YOLO(nn.Module):
    """Predicts at every cell of 8, 16 and 32 px: a box, 3 classes, and further values that are larger than these."""

    def __init__(self, further: int, form=lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU())
        self.head, self.form = nn.Conv2d(8, 7 + further, 1), form

    def forward(self, images: Tensor):
        features = self.backbone(images)
        levels = [self.head(F.avg_pool2d(features, cells)).flatten(2) for cells in (1, 2, 4)]
        raw = torch.cat(levels, dim=2)
        boxes, classes, further = raw.split([4, 3, raw.shape[1] - 7], dim=1)
        return self.form(torch.cat([boxes.sigmoid() * images.shape[-1], classes.sigmoid(), further.sigmoid() + 1], 1))


TASKS = {
    "detection": YOLO(0),
    "segmentation": YOLO(32, lambda y: (y, (["features"], y[:, 7:], torch.rand(len(y), 32, 16, 16)))),
    "pose": YOLO(3 * 17, lambda y: (y, ["features"])),
    "oriented": YOLO(1, lambda y: [y, ["features"]]),
}
TELL = {
    "nc of the head": lambda model: setattr(model.head, "nc", 3),
    "names": lambda model: setattr(model, "names", {0: "cat", 1: "dog", 2: "cow"}),
    "names of the model inside": lambda model: setattr(model.backbone, "names", ["cat", "dog", "cow"]),
    "yaml": lambda model: setattr(model, "yaml", {"nc": 3, "backbone": []}),
}


@pytest.mark.parametrize("tell", TELL)
@pytest.mark.parametrize("task", TASKS)
def test_the_classes_of_a_yolo_are_those_that_it_tells(task, tell):
    model, images = copy.deepcopy(TASKS[task]), torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match="the model tells no number of classes"):
        YOLODetections(model)
    TELL[tell](model)
    returned = model(images)
    values = returned if isinstance(returned, Tensor) else returned[0]
    for row, found in zip(values, YOLODetections(model)(images), strict=True):
        assert set(found["labels"].tolist()) <= {0, 1, 2}
        torch.testing.assert_close(found["scores"], row[4:7].amax(dim=0))
        torch.testing.assert_close(box_convert(found["boxes"], "xyxy", "cxcywh"), row[:4].T, atol=1e-4, rtol=1e-4)
        assert torch.equal(found["labels"], row[4:7].argmax(dim=0))


# Without a number of classes, values of any size behind the boxes are no probabilities.
@pytest.mark.parametrize(("task", "tells"), [("detection", False), *((task, True) for task in TASKS)])
def test_explainable_of_a_yolo_names_its_wrapper(task, tells):
    model = copy.deepcopy(TASKS[task]).eval()
    if tells:
        model.nc = 3
    with pytest.raises(TypeError, match=r"returns the boxes and classes of a YOLO: wrap it in YOLODetections\(mo"):
        explainable(model, size=(64, 64))


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        ((1, 300, 8), r"as YOLOv5 does, with an objectness .*torch\.cat\(\[y\[\.\.\., :4\], y\[\.\.\., 4:5\] \* "),
        ((1, 300, 7), "boxes after suppression, with the best class only"),
        ((1, 6, 300), r"boxes before 3 classes, got \(1, 6, 300\)$"),
    ],
)
def test_the_output_of_another_yolo_is_refused_with_a_remedy(outputs, match):
    with pytest.raises(ValueError, match=match):
        YOLODetections(Returns(torch.rand(outputs)), num_classes=3)(torch.zeros(1, 3, 64, 64))


def test_the_remedy_for_an_objectness_works():
    y = torch.rand(2, 300, 8)
    with pytest.raises(ValueError, match="objectness") as raised:
        YOLODetections(Returns(y), num_classes=3)(torch.zeros(2, 3, 64, 64))
    code = str(raised.value).partition("it returns ")[2]
    returned = eval(code, {"torch": torch, "y": y})
    found = YOLODetections(Returns(returned), num_classes=3)(torch.zeros(2, 3, 64, 64))
    torch.testing.assert_close(found[1]["scores"], y[1, :, 4] * y[1, :, 5:].amax(dim=1))


@pytest.mark.parametrize("num_labels", [2, 3])
def test_a_detr_by_hand(num_labels):
    logits = torch.tensor([[[1.0, 3.0, 2.0], [2.0, 0.0, 5.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25], [0.25, 0.5, 0.5, 1.0]]])
    (found,) = DETRDetections(Returns({"logits": logits, "pred_boxes": boxes}, num_labels))(torch.zeros(1, 3, 40, 80))
    assert found["boxes"].tolist() == [[20, 15, 60, 25], [0, 0, 40, 40]]
    # With one logit more than classes the last one is no object.
    expected = logits[0].softmax(1)[:, :2] if num_labels == 2 else logits[0].sigmoid()
    assert torch.equal(found["scores"], expected.max(dim=1).values)
    assert found["labels"].tolist() == [1, 0 if num_labels == 2 else 2]


def detr() -> nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1] * 4, out_features=["stage4"]
    )
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 32))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, d_model=32, num_queries=10, num_labels=4, **sizes, **heads
    )
    return transformers.DetrForObjectDetection(config)


def rt_detr() -> nn.Module:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12, 16, 20],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[12, 16, 20],
        encoder_hidden_dim=16,
        d_model=16,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        decoder_layers=1,
        num_queries=10,
        decoder_in_channels=[16] * 3,
        num_labels=4,
        num_denoising=0,
    )
    return transformers.RTDetrForObjectDetection(config)


@pytest.mark.parametrize(("build", "step"), [(detr, 1), (rt_detr, 32)])
def test_transformers_detectors(make_images, build, step):
    torch.manual_seed(0)
    model = DETRDetections(build()).eval()
    images = make_images(2, 64, 96)
    with torch.no_grad():
        found = model(images)
    stage = next(m for name, m in model.named_modules() if name.endswith("stages.2"))
    boxes = [BoxScoreTarget(one["boxes"][:2], one["labels"][:2], iou_threshold=0.1) for one in found]
    base = HolisticCAM(model, [stage], num_scales=1, weighting="gradient")(images, boxes)
    assert (base.max(axis=(1, 2)) == 1).all()
    # The detections of a random model differ from scale to scale.
    cam = HolisticCAM(model, [stage], sizes=[64, 96], multiple_of=step, weighting="gradient")
    maps = cam(images, [lambda found: found["scores"].max()] * 2)
    assert maps.shape == (2, 64, 96)
    assert np.isfinite(maps).all()
    assert (maps.max(axis=(1, 2)) == 1).all()


def found(boxes, labels, scores):
    return {"boxes": torch.as_tensor(boxes), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def test_the_target_selects_the_best_overlapping_detection():
    box = [10.0, 10.0, 30.0, 30.0]
    near, far = [11.0, 10.0, 31.0, 30.0], [40.0, 10.0, 60.0, 30.0]
    detections = found([box, near, box, far], [1, 1, 2, 1], [0.1, 0.8, 0.9, 0.95])
    assert float(BoxScoreTarget([box], [1])(detections)) == pytest.approx(0.8)
    assert float(BoxScoreTarget([box], [2])(detections)) == pytest.approx(0.9)
    assert float(BoxScoreTarget([box, far], [1, 1])(detections)) == pytest.approx(1.75)
    assert float(BoxScoreTarget([box], [3])(detections)) == 0
    assert float(BoxScoreTarget([[20.0, 20.0, 20.0, 20.0]], [2], "cxcywh")(detections)) == pytest.approx(0.9)
    assert float(BoxScoreTarget([box], [1])(found(np.zeros((0, 4), np.float32), [], []))) == 0


def test_a_clear_detection_agrees_with_faster_rcnn_box_score_target():
    box = [10.0, 10.0, 30.0, 30.0]
    detections = found([box, [40.0, 10.0, 60.0, 30.0]], [1, 2], [0.7, 0.9])
    reference = FasterRCNNBoxScoreTarget([1], torch.tensor([box]))(detections)
    assert float(BoxScoreTarget([box], [1])(detections)) == pytest.approx(float(reference) - 1)


def test_invalid_arguments():
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\), at least one, got shape \(0, 4\)"):
        BoxScoreTarget(torch.zeros(0, 4), [])
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\), at least one, got shape \(4,\)"):
        BoxScoreTarget([1.0, 2.0, 3.0, 4.0], [1])
    with pytest.raises(ValueError, match="same length, got 1 and 2"):
        BoxScoreTarget([[1.0, 2.0, 3.0, 4.0]], [1, 2])
    with pytest.raises(ValueError, match="box_format must be one of xyxy, xywh, cxcywh, got 'yolo'"):
        BoxScoreTarget([[1.0, 2.0, 3.0, 4.0]], [1], "yolo")
    with pytest.raises(ValueError, match="activation must be one of softmax, sigmoid, got 'relu'"):
        DETRDetections(nn.Identity(), "relu")
    with pytest.raises(ValueError, match=r'the model has no config\.num_labels: pass activation="softmax" or'):
        DETRDetections(nn.Identity())
    for outputs in (torch.zeros(1, 25200, 85), torch.zeros(1, 85), {}):
        with pytest.raises(
            ValueError, match=r"a YOLO must return \(B, 4 \+ classes, N\), boxes before 80 classes, got"
        ):
            YOLODetections(Returns(outputs), num_classes=80)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"tells no number of classes, .*: pass YOLODetections\(model, num_c"):
        YOLODetections(Returns(torch.rand(1, 84, 100)))
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        YOLODetections(nn.Identity(), num_classes=0)


def torchvision_detector(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=192)
    model.score_thresh = 0
    return model.eval()


PYRAMIDS = ("retinanet_resnet50_fpn", "fcos_resnet50_fpn")


@pytest.fixture(scope="module", params=PYRAMIDS)
def pyramid_detector(request):
    return torchvision_detector(request.param)


def test_feature_pyramids_are_joined(pyramid_detector, make_images):
    options = {"sizes": [64, 96], "weighting": "positive", "fsd": False}
    cam = HolisticCAM(pyramid_detector, [pyramid_detector.backbone], fpn_reshape_transform, **options)
    maps = cam(make_images(1), [lambda found: found["scores"].sum()])
    assert maps.shape == (1, 64, 64)
    assert maps.max() == 1


def test_the_transform_of_another_detector_is_refused_with_ours(pyramid_detector, make_images):
    cam = HolisticCAM(pyramid_detector, [pyramid_detector.backbone], fasterrcnn_reshape_transform, sizes=[64])
    match = r"finds no 'pool' in the target layer's output, which has '0', '1', '2', 'p6', 'p7': .*fpn_reshape"
    with pytest.raises(ValueError, match=match):
        cam(make_images(1), [lambda found: found["scores"].max()])
    with pytest.raises(TypeError, match=r"reshape_transform that joins its tensors, such as .*fpn_reshape_transf"):
        HolisticCAM(pyramid_detector, [pyramid_detector.backbone], sizes=[64])(make_images(1), [lambda found: 0])


def test_a_detector_that_finds_nothing_is_told(pyramid_detector, make_images):
    cam = HolisticCAM(pyramid_detector, [pyramid_detector.backbone], fpn_reshape_transform, sizes=[64])
    target = [BoxScoreTarget([[-9.0, -9.0, -1.0, -1.0]], [1])]
    with pytest.raises(ValueError, match=r"None of the model's \d+ boxes fits the target: pass a box and label"):
        cam(make_images(1), target)
    threshold, pyramid_detector.score_thresh = pyramid_detector.score_thresh, 1.1
    with pytest.raises(ValueError, match=r"The model finds no box in the image: lower its score threshold"):
        cam(make_images(1), target)
    pyramid_detector.score_thresh = threshold


def test_the_levels_of_a_pyramid_keep_their_values_and_places():
    fine, coarse = torch.randn(2, 3, 8, 12), torch.randn(2, 4, 4, 6)
    joined = fpn_reshape_transform({"fine": fine, "coarse": coarse})
    assert torch.equal(joined[:, :3], fine)
    torch.testing.assert_close(joined[:, 3:, 1::2, 1::2].mean(), coarse.mean(), atol=0.2, rtol=0)
    assert (joined < 0).any()
    assert torch.equal(fpn_reshape_transform([fine, coarse]), joined)
    for levels in (fine, {}, {"fine": fine[0]}):
        with pytest.raises(TypeError, match=r"levels must be a dict, list or tuple of maps \(B, C, h, w\), got a"):
            fpn_reshape_transform(levels)
