"""Real architectures of torchvision and timm, with random weights, in every task of pytorch-grad-cam's tutorials."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
)
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform as library_vit_reshape_transform
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection, resnet18, segmentation, swin_t, swin_v2_t, video, vit_b_32

from holistic_cam_plugin import (
    HolisticCAM,
    explainable,
    positive_gradient_weights,
    swin_reshape_transform,
    unit_reshape_transform,
    vit_reshape_transform,
)
from holistic_cam_plugin.method.normalize import min_max_normalize
from holistic_cam_plugin.passes.capture import Capture


def picture(*shape: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, channels, *(6 for _ in shape), generator=generator)
    return F.interpolate(coarse, size=shape, mode="bilinear" if len(shape) == 2 else "trilinear") * 2 - 1


def checked(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    assert maps.shape == shape
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() == 0
    assert maps.max() == 1
    return maps


class Output(nn.Module):
    """The wrapper of pytorch-grad-cam's segmentation tutorial."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)["out"]


def seeded(build: Callable[..., nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build(**options).eval()
    for name, parameter in model.named_parameters():
        if "head" in name and not parameter.any():  # some begin with zeros, and would explain nothing
            nn.init.normal_(parameter)
    return model


SEGMENTATION = {
    "deeplabv3": lambda: segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4),
    "fcn": lambda: segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=4),
    "lraspp": lambda: segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4),
}


@pytest.mark.parametrize("name", SEGMENTATION)
def test_semantic_segmentation(name):
    model = Output(seeded(SEGMENTATION[name])).eval()
    layer = list(model.model.backbone.children())[-1]
    image, mask = picture(64, 96), np.zeros((64, 96), np.float32)
    mask[10:40, 20:70] = 1
    targets = [SemanticSegmentationTarget(2, mask)]
    checked(HolisticCAM(model, [layer], sizes=[64, 96])(image, targets), (1, 64, 96))
    with pytest.raises(TypeError, match=r'returned a OrderedDict, not a tensor(.|\n)*self\.model\(x\)\["out"\]'):
        HolisticCAM(model.model, [layer], sizes=[64, 96])(image, targets)


def test_the_mask_of_a_segmentation_lies_on_the_native_output(make_images):
    """A model whose output is its input: the gradient at every scale is the mask, enlarged."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    mask = np.zeros((64, 64), np.float32)
    mask[16:32, 40:56] = 1
    cam = HolisticCAM(model, [model[1]], sizes=[80, 128], weighting="gradient", fsd=False)
    ((steps,),) = cam.intermediates(make_images(1), [SemanticSegmentationTarget(1, mask)])
    for side, weights in zip((80, 128), steps.weights, strict=True):
        scale = side / 64
        expected = model[2].weight[1, :, 0, 0].detach()
        np.testing.assert_allclose(weights.sum(dim=(1, 2)), expected * mask.sum(), rtol=1e-3)
        inside = weights[:, int(20 * scale), int(48 * scale)] * scale**2  # the score is shared by more pixels
        np.testing.assert_allclose(inside, expected, rtol=0.1)
        assert (weights[:, int(50 * scale), int(20 * scale)] == 0).all()


def small_detector(**options: Any) -> nn.Module:
    backbone = seeded(detection.backbone_utils.resnet_fpn_backbone, backbone_name="resnet18", weights=None)
    torch.manual_seed(2)
    model = detection.FasterRCNN(backbone, 5, box_score_thresh=0.0, **options).eval()
    model.transform.resize = lambda image, target: (image, target)  # else it brings every scale to one size
    return model


@pytest.mark.campaign
def test_detection_with_the_librarys_target_and_reshape_transform():
    model, image = small_detector(), picture(96, 96)
    with torch.no_grad():
        found = model(image)[0]
    targets = [FasterRCNNBoxScoreTarget(found["labels"][:3], found["boxes"][:3])]
    cam = HolisticCAM(model, [model.backbone], fasterrcnn_reshape_transform, sizes=[96, 128])
    checked(cam(image, targets), (1, 96, 96))
    assert set(cam.outputs[0]) == {"boxes", "labels", "scores"}
    assert not cam.outputs[0]["boxes"].requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


class Spot(nn.Module):
    """Detects one box around the brightest spot, in pixels of what it is given, if it is large enough."""

    def __init__(self, largest: int = 10**6) -> None:
        super().__init__()
        self.features, self.largest = nn.Conv2d(1, 1, 1, bias=False), largest
        self.features.weight.data.fill_(1)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        maps = self.features(images)
        results = []
        for one in maps[:, 0]:
            y, x = divmod(int(one.argmax()), one.shape[1])
            half = one.shape[0] / 8
            box = one.new_tensor([[x - half, y - half, x + half, y + half]])
            kept = slice(0, 1 if one.shape[0] <= self.largest else 0)
            results.append({"boxes": box[kept], "labels": torch.ones(1)[kept], "scores": one.max()[None][kept]})
        return results


def spot_image() -> Tensor:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return torch.exp(-((y - 20) ** 2 + (x - 44) ** 2) / 50)[None, None]


def test_boxes_come_back_to_native_pixels_before_the_target_sees_them():
    seen = []

    def target(found: dict[str, Tensor]) -> Tensor:
        seen.append(found["boxes"][0].tolist())
        return found["scores"].sum()

    model = Spot().eval()
    HolisticCAM(model, [model.features], sizes=[64, 96, 128], fsd=False)(spot_image(), [target])
    assert len(seen) == 3
    for box in seen:
        np.testing.assert_allclose(box, [36, 12, 52, 28], atol=1.5)


def test_a_scale_that_loses_the_object_counts_as_zero():
    model, image = Spot(largest=80).eval(), spot_image()
    target = FasterRCNNBoxScoreTarget([1], torch.tensor([[36.0, 12.0, 52.0, 28.0]]))
    cam = HolisticCAM(model, [model.features], sizes=[64, 96, 128], fsd=False)
    with pytest.warns(UserWarning, match="find nothing in the images of 96x96, 128x128 px: these scales count as zero"):
        maps = cam(image, [target])
    checked(maps, (1, 64, 64))
    blind = FasterRCNNBoxScoreTarget([1], torch.tensor([[0.0, 0.0, 5.0, 5.0]]))
    with pytest.raises(ValueError, match="score does not depend on the target layers: nothing to explain"):
        HolisticCAM(model, [model.features], sizes=[64, 96])(image, [blind])


class Pyramid(nn.Module):
    """A layer that returns a dict of maps, signed ones, and a head that uses a part of them."""

    def __init__(self, form: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.necks = nn.ModuleList([nn.Conv2d(3, 4, 3, stride=s, padding=1) for s in (2, 4)])

    def forward(self, x: Tensor) -> Any:
        return self.form([neck(x) for neck in self.necks])


class Headed(nn.Module):
    def __init__(self, form: Callable[[list[Tensor]], Any], used: Any) -> None:
        super().__init__()
        self.neck, self.used = Pyramid(form), used

    def forward(self, x: Tensor) -> Tensor:
        return self.neck(x)[self.used].tanh().mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("form", "used"),
    [(lambda maps: {"0": maps[0], "pool": maps[1]}, "0"), (lambda maps: {"0": maps[1], "pool": maps[0]}, "pool")],
)
def test_a_layer_that_returns_a_dict(make_images, form, used):
    model, image = Headed(form, used).eval(), make_images(1)
    capture = Capture(model, [model.neck], fasterrcnn_reshape_transform)
    activations, gradients = capture.activations_and_gradients(capture(image)[0, 2])
    record = model.neck(image)
    leaf = record[used].detach().requires_grad_()
    gradient = torch.autograd.grad(leaf.tanh().mean(dim=(2, 3))[0, 2], leaf)[0]
    size = record["pool"].shape[-2:]
    place = 0 if used == "0" else 4
    expected = F.interpolate(gradient, size, mode="bilinear")
    torch.testing.assert_close(gradients[0][:, place : place + 4], expected)  # signed, though the transform is not
    assert torch.equal(gradients[0][:, 4 - place : 8 - place], torch.zeros_like(expected))  # the unused part
    torch.testing.assert_close(activations[0], fasterrcnn_reshape_transform(record))


def test_tuples_and_lists_of_tensors_go_through_the_transform_too(make_images):
    images = make_images(2)
    for form in (tuple, list):
        model = Headed(form, 0).eval()
        maps = HolisticCAM(model, [model.neck], lambda parts: parts[0], sizes=[64, 80])(images)
        plain = nn.Sequential(model.neck.necks[0], Tanh()).eval()
        np.testing.assert_allclose(maps, HolisticCAM(plain, [plain[0]], sizes=[64, 80])(images), atol=1e-5)


class Tanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh().mean(dim=(2, 3))


def test_the_backward_gradients_of_a_dict_are_the_same(make_images):
    model, image = Headed(lambda maps: {"0": maps[0], "pool": maps[1]}, "0").eval(), make_images(1)
    capture = Capture(model, [model.neck], fasterrcnn_reshape_transform)
    expected = capture.activations_and_gradients(capture(image)[0, 2])[1][0]
    capture(image)[0, 2].backward()
    assert torch.equal(capture.gradients[0], expected)


def timm_vit(**options: Any) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64, **options)


TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], nn.Module], Callable[..., Tensor]]] = {
    "torchvision swin_t": (partial(swin_t, weights=None), lambda m: m.features[-3][0], swin_reshape_transform),
    "torchvision swin_v2_t": (
        partial(swin_v2_t, weights=None),
        lambda m: m.features[-1][0].attn,
        swin_reshape_transform,
    ),
    "timm vit": (
        partial(timm_vit, dynamic_img_size=True, dynamic_img_pad=True),
        lambda m: m.blocks[-1].norm1,
        vit_reshape_transform,
    ),
    "timm deit distilled": (
        lambda: timm.create_model(
            "deit_tiny_distilled_patch16_224", img_size=64, dynamic_img_size=True, dynamic_img_pad=True
        ),
        lambda m: m.blocks[-1].norm1,
        vit_reshape_transform,
    ),
    "timm vit with registers": (
        partial(timm_vit, dynamic_img_size=True, dynamic_img_pad=True, reg_tokens=4),
        lambda m: m.blocks[-1].norm1,
        vit_reshape_transform,
    ),
    "timm swin": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, strict_img_size=False),
        lambda m: m.layers[-1].blocks[0].norm1,
        swin_reshape_transform,
    ),
}


@pytest.mark.parametrize("shape", [(64, 64), (64, 96)])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_that_take_any_size(name, shape):
    build, layer_of, transform = TRANSFORMERS[name]
    model, image = seeded(build), picture(*shape)
    sizes = [64, 96, 104]
    # Positive weights of a random net may meet negative activations alone: raw gradients give a map in any case. Not in
    # front of a LayerNorm, though, to which a larger activation is no other one.
    cam = HolisticCAM(model, [layer_of(model)], transform, sizes=sizes, weighting="gradient")
    checked(cam(image, [ClassifierOutputTarget(3)]), (1, *shape))
    capture = Capture(model, [layer_of(model)], transform)
    stride = 32 if "swin_v2" in name or "timm swin" in name else 16
    for size in sizes:
        scaled = F.interpolate(image, size=(size, size * shape[1] // 64))
        capture(scaled)
        grid = capture.activations[0].shape[2:]
        assert grid == tuple(-(-side // stride) for side in scaled.shape[2:])


def test_hieras_tokens_lie_where_timm_rolls_them_back_to():
    torch.manual_seed(0)
    model = timm.create_model("hiera_tiny_224", embed_dim=24, num_heads=1, stages=(1, 1, 1, 1), num_classes=5).eval()
    nn.init.normal_(model.head.fc.weight, std=0.1)
    recorded = {}
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, output, index=index: recorded.update({index: output}))
    model(torch.randn(1, 3, 224, 224))
    for index, tokens in recorded.items():
        maps = unit_reshape_transform(tokens, (224, 224))
        assert torch.equal(maps, model.reroll(tokens, index).permute(0, 3, 1, 2))
    found = explainable(model)
    assert [layer.grid for layer in found.maps if layer.name in found.layer_names] == [
        (56, 56),
        (28, 28),
        (14, 14),
        (7, 7),
    ]
    assert found.options["tiles"]


def test_the_librarys_fixed_transform_is_told_of_ours():
    model = seeded(lambda: timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True))
    cam = HolisticCAM(model, [model.blocks[-1].norm1], library_vit_reshape_transform, sizes=[224, 256])
    with pytest.raises(ValueError, match=r"not the pyramid's 256x256 px .*holistic_cam_plugin\.vit_reshape_trans"):
        cam(picture(224, 224))


def test_a_vit_of_fixed_size_has_its_tiles():
    model = seeded(vit_b_32, weights=None)
    del model.encoder.layers[2:]  # two blocks will do
    layer = model.encoder.layers[-1].ln_1
    image = picture(224, 224)
    with pytest.raises(ValueError, match=r"not the pyramid's 1081x1081 px .*Pass tiles=True"):
        HolisticCAM(model, [layer], vit_reshape_transform)(image)
    cam = HolisticCAM(model, [layer], vit_reshape_transform, tiles=True, sizes=[224, 366], weighting="gradient")
    checked(cam(image), (1, 224, 224))


def test_a_grad_cam_with_our_transform_takes_square_images():
    model = seeded(partial(timm_vit, dynamic_img_size=True))
    maps = GradCAM(model, [model.blocks[-1].norm1], vit_reshape_transform)(picture(64, 64), [ClassifierOutputTarget(1)])
    assert maps.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("classes", "target"),
    [
        (1, BinaryClassifierOutputTarget(1)),
        (1, BinaryClassifierOutputTarget(0)),
        (1, RawScoresOutputTarget()),
        (5, lambda output: torch.sigmoid(output)[[1, 3]].sum()),
        (5, lambda output: F.cosine_similarity(output, torch.linspace(-1, 1, 5), dim=0)),
        (5, lambda output: (F.normalize(output, dim=0) @ F.normalize(torch.ones(5), dim=0)) / 0.07),
    ],
    ids=["binary", "binary, the other class", "regression", "multi-label", "embedding", "image-text"],
)
def test_any_head_and_any_callable_to_a_scalar(classes, target):
    model = seeded(resnet18, weights=None, num_classes=classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random net may hold no evidence for one of the two classes
        maps = HolisticCAM(model, [model.layer3], sizes=[64, 96], weighting="positive")(picture(64, 64), [target])
    assert maps.shape == (1, 64, 64)
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_gray_and_multi_channel_images(channels):
    model = seeded(resnet18, weights=None)
    model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    image = picture(64, 64, channels=channels)
    checked(HolisticCAM(model, [model.layer3], sizes=[64, 96])(image, [ClassifierOutputTarget(3)]), (1, 64, 64))


@pytest.mark.campaign
@pytest.mark.parametrize("eigen_smooth", [False, True])
@pytest.mark.parametrize("fsd", [False, True])
def test_videos(fsd, eigen_smooth):
    model, clip = seeded(video.r3d_18, weights=None), picture(8, 48, 56)
    cam = HolisticCAM(model, [model.layer2], sizes=[48, 64], fsd=not eigen_smooth)
    target = [ClassifierOutputTarget(3)]
    maps = checked(cam(clip, target, eigen_smooth=eigen_smooth), (1, 8, 48, 56))
    assert maps.shape == GradCAM(model, [model.layer2])(clip, target).shape
    two = cam(torch.cat([clip, clip.flip(-1)]), target * 2, eigen_smooth=eigen_smooth)
    np.testing.assert_allclose(two[0], maps[0], atol=1e-3)


def test_a_volumes_map_is_the_equations(make_images):
    """Trilinear throughout, element by element, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1, stride=(1, 2, 2)), nn.ReLU(), Score()).eval()
    volume = picture(6, 24, 20, channels=2)
    scales = []
    for size in [(6, 24, 20), (9, 36, 30)]:
        leaf = model[:2](F.interpolate(volume, size, mode="trilinear")).detach().double().requires_grad_()
        gradient = torch.autograd.grad(model[2].double()(leaf)[0, 1], leaf)[0]
        weights = positive_gradient_weights(leaf.detach(), gradient, 1e-5)
        scales.append([F.interpolate(x, volume.shape[2:], mode="trilinear")[0] for x in (leaf.detach(), weights)])
    model.float()
    mean_a, mean_w = (torch.stack(parts).mean(dim=0) for parts in zip(*scales, strict=True))
    expected = min_max_normalize((mean_a * mean_w).sum(dim=0).clamp(min=0).numpy())
    maps = HolisticCAM(model, [model[1]], sizes=[20, 30], fsd=False)(volume, [ClassifierOutputTarget(1)])
    np.testing.assert_allclose(maps[0], expected, atol=1e-4)


class Score(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).tanh().mean(dim=(2, 3, 4))


@pytest.mark.parametrize("weights", ["positive", "gradient"])
def test_every_weight_takes_volumes(weights):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), Score()).eval()
    maps = HolisticCAM(model, [model[0]], sizes=[16, 20], weighting=weights)(picture(6, 16, 18, channels=1))
    checked(maps, (1, 6, 16, 18))


def test_volumes_are_not_enlarged_bicubically():
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), Score()).eval()
    with pytest.raises(ValueError, match="interpolation must be 'bilinear' for volumes"):
        HolisticCAM(model, [model[0]], sizes=[16, 20], interpolation="bicubic")(picture(6, 16, 18, channels=1))


def other_devices() -> list[str]:
    found = ["cuda"] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else [])


@pytest.mark.skipif(not other_devices(), reason="no CUDA or MPS device at hand")
@pytest.mark.parametrize("weights", ["pge", "positive"])
def test_other_devices_give_the_cpus_maps(weights):
    model, image = seeded(resnet18, weights=None), picture(64, 64)
    expected = HolisticCAM(model, [model.layer2, model.layer4], sizes=[64, 96], weighting=weights)(image)
    for device in other_devices():
        model.to(device)
        maps = HolisticCAM(model, [model.layer2, model.layer4], sizes=[64, 96], weighting=weights)(image)
        np.testing.assert_allclose(maps, expected, atol=1e-3)
