"""Families of torchvision, timm and transformers, small ones, built from their configs without weights."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision import models

from holistic_cam_plugin import HolisticCAM, explainable

CLASSES = 5


def hugging_face(name: str, **options: Any) -> Callable[[], nn.Module]:
    config = getattr(transformers, f"{name}Config")
    model = getattr(transformers, f"{name}ForImageClassification")
    return lambda: model(config(num_labels=CLASSES, **options))


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, pretrained=False, num_classes=CLASSES, **options)


def tokens(**options: Any) -> dict[str, Any]:
    return {"img_size": 64, "embed_dim": 24, "depth": 4, "num_heads": 2} | options


WIDTHS = (8, 12, 16, 20)
FOUR = (1, 1, 1, 1)
HF_TOKENS = {"image_size": 64, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
SWIN = {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 1, 2), "num_heads": (1, 2, 2, 2), "window_size": 2}


def tv_convnext() -> nn.Module:
    setting = [models.convnext.CNBlockConfig(i, o, 1) for i, o in ((8, 12), (12, 16), (16, 20), (20, None))]
    return models.ConvNeXt(setting, num_classes=CLASSES)


def tv_swin() -> nn.Module:
    return models.SwinTransformer([4, 4], 12, [1, 1, 2], [2, 2, 2], [2, 2], num_classes=CLASSES)


# The builder, the size to try, what its sides may grow by, and the layers.
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int | None, int | None, str]] = {
    "torchvision resnet": (partial(models.resnet18, num_classes=CLASSES), 64, 1, "layer1 layer2 layer3 layer4"),
    "torchvision convnext": (tv_convnext, 64, 1, "features.2.0 features.4.0 features.6.0 features.7"),
    "torchvision swin": (tv_swin, 64, 1, "features.1 features.3 norm"),
    "torchvision vit": (
        partial(models.VisionTransformer, 64, 16, 3, 2, 24, 48, num_classes=CLASSES),
        None,
        None,
        " ".join(f"encoder.layers.encoder_layer_{n}.ln_1" for n in range(3)),
    ),
    "timm resnet": (
        of_timm("resnet18", layers=FOUR, channels=WIDTHS, stem_width=8),
        64,
        1,
        "layer1 layer2 layer3 layer4",
    ),
    "timm convnext": (
        of_timm("convnext_atto", depths=FOUR, dims=WIDTHS),
        64,
        1,
        "stages.1.downsample.0 stages.2.downsample.0 stages.3.downsample.0 stages.3",
    ),
    "timm convnext v2": (
        of_timm("convnextv2_atto", depths=FOUR, dims=WIDTHS),
        64,
        1,
        "stages.1.downsample.0 stages.2.downsample.0 stages.3.downsample.0 stages.3",
    ),
    "timm efficientnet": (of_timm("test_efficientnet"), 64, 1, "blocks.1 blocks.2 blocks.3 bn2"),
    "timm mobilenet v3": (of_timm("mobilenetv3_small_050"), 64, 1, "blocks.0 blocks.1 blocks.3 blocks.5"),
    "timm regnet": (of_timm("regnetx_002"), 64, 1, "s1 s2 s3 s4"),
    "timm vit": (
        of_timm("vit_tiny_patch16_224", **tokens(depth=8)),
        None,
        None,
        "blocks.1.norm1 blocks.3.norm1 blocks.5.norm1 blocks.7.norm1",
    ),
    "timm vit of any size": (
        of_timm("vit_tiny_patch16_224", **tokens(dynamic_img_size=True, dynamic_img_pad=True)),
        None,
        1,
        "blocks.0.norm1 blocks.1.norm1 blocks.2.norm1 blocks.3.norm1",
    ),
    "timm deit": (
        of_timm("deit_tiny_distilled_patch16_224", **tokens(dynamic_img_size=True)),
        None,
        16,
        "blocks.0.norm1 blocks.1.norm1 blocks.2.norm1 blocks.3.norm1",
    ),
    "timm siglip, pooled by attention": (
        of_timm("vit_base_patch16_siglip_224", **tokens()),
        None,
        None,
        "blocks.0.norm1 blocks.1.norm1 blocks.2.norm1 norm",
    ),
    "timm beit": (of_timm("beit_base_patch16_224", **tokens()), None, None, "blocks.0 blocks.1 blocks.2 blocks.3"),
    "timm dinov2 with registers": (
        of_timm("vit_small_patch14_reg4_dinov2", **tokens(img_size=56, dynamic_img_size=True)),
        None,
        14,
        "blocks.0.norm1 blocks.1.norm1 blocks.2.norm1 blocks.3.norm1",
    ),
    "timm swin": (of_timm("swin_tiny_patch4_window7_224", **SWIN), None, None, "layers.0 layers.1 layers.2 norm"),
    "timm swin v2": (of_timm("swinv2_tiny_window8_256", **SWIN), None, None, "layers.0 layers.1 layers.2 norm"),
    "timm maxvit": (of_timm("test_maxvit", img_size=64), None, None, "stages.0 stages.1 stages.2 norm"),
    "timm pvt v2": (
        of_timm("pvt_v2_b0", depths=FOUR, embed_dims=(8, 16, 20, 24), num_heads=(1, 2, 2, 2)),
        64,
        1,
        "stages.0 stages.1 stages.2 stages.3",
    ),
    "transformers resnet": (
        hugging_face("ResNet", embedding_size=8, hidden_sizes=WIDTHS, depths=FOUR),
        64,
        1,
        " ".join(f"resnet.encoder.stages.{n}" for n in range(4)),
    ),
    "transformers convnext": (
        hugging_face("ConvNext", hidden_sizes=list(WIDTHS), depths=list(FOUR)),
        64,
        1,
        " ".join(f"convnext.encoder.stages.{n}.downsampling_layer.0" for n in (1, 2, 3)) + " convnext.encoder.stages.3",
    ),
    "transformers swin": (
        hugging_face("Swin", image_size=64, embed_dim=12, depths=[2, 2, 2], num_heads=[2, 2, 2], window_size=4),
        None,
        1,
        "swin.encoder.layers.0.blocks.1.layernorm_after swin.encoder.layers.1.blocks.1.layernorm_after swin.layernorm",
    ),
    "transformers vit": (
        hugging_face("ViT", **HF_TOKENS),
        None,
        1,
        " ".join(f"vit.layers.{n}.layernorm_before" for n in range(4)),
    ),
    "transformers beit": (hugging_face("Beit", **HF_TOKENS), None, 1, " ".join(f"beit.layers.{n}" for n in range(4))),
    "transformers dinov2 with registers": (
        hugging_face("Dinov2WithRegisters", **HF_TOKENS | {"image_size": 56, "patch_size": 14}),
        None,
        1,
        " ".join(f"dinov2_with_registers.encoder.layer.{n}.norm1" for n in range(3))
        + " dinov2_with_registers.layernorm",
    ),
}


def build_model(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():
        if not parameter.any():  # heads that begin with zeros explain nothing
            nn.init.normal_(parameter, std=0.1)
    return model


def square(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (side, side)


def state(model: nn.Module) -> dict[str, Any]:
    """All that a model is: attributes, flags, hooks, tensors."""
    own = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            own[f"{name}.{key}"] = list(value) if isinstance(value, dict) else value
    own["tensors"] = {key: (id(value), value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    return own


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_needs_nothing_looked_up(make_images, family):
    build, side, multiple_of, layers = FAMILIES[family]
    model = build_model(build)
    found = explainable(model, size=square(side))
    assert found.layer_names == layers.split()
    assert found.target_layers == [model.get_submodule(name) for name in found.layer_names]
    assert found.multiple_of == multiple_of
    assert found.size == ((side or 64,) * 2 if "dinov2" not in family else (56, 56))
    cam = HolisticCAM(found.model, found.target_layers, **found.options, num_scales=2, weighting="gradient")
    cam.max_size = 2 * found.size[0] - 10  # no multiple of 14 or 16
    for maps in cam.compute_cam_per_layer(make_images(1, *found.size), None):
        assert maps.shape == (1, 1, *found.size)
        assert np.isfinite(maps).all()
        assert (maps.min(), maps.max()) == (0, 1)


@pytest.mark.parametrize("family", ["transformers swin", "timm swin v2", "timm vit", "torchvision resnet"])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_model_is_left_as_it_was(family, frozen):
    build, side, _, _ = FAMILIES[family]
    model = build_model(build).requires_grad_(not frozen)
    model.train()
    next(module for module in model.modules() if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)).eval()
    handle = model.register_forward_hook(lambda *_: None)
    before, random = state(model), torch.get_rng_state()
    explainable(model, size=square(side))
    after = state(model)
    assert torch.equal(random, torch.get_rng_state())
    for (name, old), (same, own) in zip(before.pop("tensors").items(), after.pop("tensors").items(), strict=True):
        assert (name, old[0]) == (same, own[0])
        assert torch.equal(old[1], own[1])
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key] is value or after[key] == value, key
    assert all(parameter.grad is None for parameter in model.parameters())
    handle.remove()


def test_a_swin_of_transformers_that_met_other_sizes_gives_the_same_as_before():
    """It changes its windows to what it meets, for good."""
    model = build_model(FAMILIES["transformers swin"][0])
    fresh, image = copy.deepcopy(model), torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="of 32x32 px"):
        explainable(model, size=(32, 32))
    with torch.no_grad():
        assert torch.equal(model(image).logits, fresh(image).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("family", ["timm resnet", "transformers vit"])
def test_other_dtypes(make_images, family, dtype):
    build, side, _, layers = FAMILIES[family]
    model = build_model(build).to(dtype)
    found = explainable(model, size=square(side))
    assert found.layer_names == layers.split()
    maps = HolisticCAM(found.model, found.target_layers[-1:], **found.options, num_scales=2, weighting="gradient")(
        make_images(1).to(dtype)
    )
    assert maps.max() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu(make_images):
    model = build_model(FAMILIES["transformers vit"][0]).half().cuda()
    found = explainable(model)
    assert HolisticCAM(found.model, found.target_layers[-1:], **found.options)(make_images(1).half()).max() == 1
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}


@pytest.mark.parametrize("shape", [(1, 64, 64), (4, 64, 96)])
def test_other_channels_and_images_that_are_no_squares(make_images, shape):
    model = build_model(of_timm("resnet18", layers=FOUR, channels=WIDTHS, stem_width=8, in_chans=shape[0]))
    found = explainable(model, size=shape[1:])
    assert found.size == shape[1:]
    assert found.layer_names == ["layer1", "layer2", "layer3", "layer4"]
    assert len(found.preprocessing.mean) == shape[0]


def test_own_modules_and_wrappers(net):
    found = explainable(nn.DataParallel(net))
    assert found.model is net
    assert found.layer_names == ["layer1", "layer2", "layer3"]
    assert found.options == {"mask_layer": net.layer3}
    assert found.size == (224, 224)
    assert found.preprocessing.source == "assumed"


@pytest.mark.parametrize(("outputs", "last"), [(5, "2.0"), (7, "2")])
def test_maps_of_classes_are_no_layer_to_explain(outputs, last):
    """Where there are others: the scores are the mean of the last maps."""
    layers = [nn.Conv2d(3, 7, 8, stride=8), nn.ReLU(), nn.Sequential(nn.Conv2d(7, 7, 1), nn.Conv2d(7, outputs, 1))]
    model = build_model(lambda: nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert explainable(model, size=(64, 64)).layer_names[-1] == last


@pytest.mark.parametrize("family", ["timm vit", "timm resnet"])
def test_embeddings_are_as_wide_as_the_last_maps(family):
    build, side, _, layers = FAMILIES[family]
    model = build_model(partial(build, num_classes=0))
    assert explainable(model, size=square(side)).layer_names == layers.split()


class Shaped(nn.Module):
    """Stages whose first is a convolution's, and whose others are tokens, then channels last."""

    def __init__(self, *layouts: str) -> None:
        super().__init__()
        self.layouts = layouts
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c + 4, 2, stride=2), nn.Tanh(), Laid(layout))
            for c, layout in zip((3, 7, 11), layouts, strict=True)
        )
        self.head = nn.Linear(15, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for stage, layout in zip(self.stages, self.layouts, strict=True):
            x, size = stage(x), x.shape[-2] // 2
            if layout == "tokens":
                x = x.unflatten(1, (size, -1))
            if layout != "first":
                x = x.permute(0, 3, 1, 2)
        return self.head(x.square().mean(dim=(2, 3)))


class Laid(nn.Module):
    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "tokens":
            return x.flatten(2).transpose(1, 2)
        return x.permute(0, 2, 3, 1) if self.layout == "last" else x


@pytest.mark.parametrize(
    ("layouts", "layers"),
    [
        (("first", "tokens", "tokens"), ["stages.0", "stages.1", "stages.2"]),
        (("first", "first", "tokens"), ["stages.0", "stages.1", "stages.2"]),
        (("last", "last", "last"), None),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_stages_of_several_layouts_share_a_reshape_transform(make_images, layouts, layers, size):
    model = build_model(partial(Shaped, *layouts))
    found = explainable(model, size=size)
    if layers:
        assert found.layer_names == layers
    cam = HolisticCAM(
        found.model, found.target_layers, num_scales=2, max_size=64, weighting="gradient",
        **(found.options | {"mask_layer": None}),
    )  # fmt: skip
    ((first, *_), *_), image = cam.intermediates(make_images(1, *size)), make_images(1, *size)
    assert first.activations[0].shape == (7, size[0] // 2, size[1] // 2)
    plain = build_model(partial(Shaped, "first", "first", "first"))
    alike = explainable(plain, size=size).target_layers
    for name, own, layer in zip(found.layer_names, cam.compute_cam_per_layer(image, None), alike, strict=True):
        other = HolisticCAM(plain, [layer], num_scales=2, max_size=64, weighting="gradient")(image)
        np.testing.assert_allclose(own[:, 0], other, atol=1e-3, err_msg=name)


def test_class_names(tmp_path):
    named = build_model(hugging_face("ViT", **HF_TOKENS, id2label={n: f"bird {n}" for n in range(CLASSES)}))
    assert explainable(named).classes == [f"bird {n}" for n in range(CLASSES)]
    assert explainable(build_model(FAMILIES["transformers vit"][0])).classes is None  # LABEL_0, ...
    model = build_model(partial(timm.create_model, "test_resnet"))
    classes = explainable(model, size=(32, 32)).classes
    assert len(classes) == 1000
    assert classes[3].startswith("tiger shark")
    assert explainable(build_model(of_timm("test_resnet")), size=(32, 32)).classes is None
    model = build_model(of_timm("test_resnet", pretrained_cfg_overlay={"label_names": list("abcde")}))
    assert explainable(model, size=(32, 32)).classes == list("abcde")


class Odd(nn.Module):
    def __init__(self, returns: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        return self.returns(self.features(x))


def refuses(x: Tensor) -> Tensor:
    raise RuntimeError("such images are not taken")


def out_of_memory(x: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("tried to allocate 20 GiB")


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        ("resnet50", TypeError, r"model must be a torch\.nn\.Module, got 'resnet50'"),
        (
            Odd(lambda x: (x.mean(), x)),
            TypeError,
            r"returned a tuple, not a tensor of logits: .* such as self\.model\(images\)\[0\]",
        ),
        (
            Odd(lambda x: [{"boxes": x}]),
            TypeError,
            r"takes classifiers, not detectors: .* DETRDetections",
        ),
        (
            Odd(lambda x: {"logits": x, "pred_boxes": x}),
            TypeError,
            r"takes classifiers, not detectors",
        ),
        (
            Odd(lambda x: {"out": x}),
            TypeError,
            r"returned a dict with 'out', not a tensor of logits: .* self\.model\(images\)\['out'\]",
        ),
        (Odd(lambda x: x.mean(dim=(2, 3)) * 0), ValueError, r"no layer of this Odd returns maps .* call HolisticCAM"),
        (
            Odd(refuses),
            ValueError,
            r"does not run on images .* of 224x224 px .*pass size=\(height, width\)",
        ),
        (Odd(out_of_memory), torch.OutOfMemoryError, "20 GiB"),
    ],
)
def test_what_it_cant_find_it_says(model, error, match):
    with pytest.raises(error, match=match):
        explainable(model)


def test_other_layers_by_name() -> None:
    model = models.resnet18(num_classes=CLASSES).eval()
    model.aside = nn.Conv2d(3, 4, 1)
    found = explainable(model, size=(64, 64))
    other = found.at(["layer3.0.relu", "layer1"])  # relu runs twice: the first call counts
    assert other.target_layers == [model.layer3[0].relu, model.layer1]
    assert (other.layer_names, other.reshape_transform) == (["layer3.0.relu", "layer1"], None)
    assert other.model is model
    for name, message in {
        "fc": "the layer 'fc' returns neither maps .B, C, h, w. nor tokens .B, N, C.$",
        "avgpool": "the layer 'avgpool' returns neither maps",
        "aside": "the layer 'aside' returns neither maps",
        "layer5": "the model has no layer 'layer5'; did you mean layer4",
        "": "the model has no layer ''",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            found.at(["layer4", name])
        assert "--" not in str(error.value)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_repr_is_short() -> None:
    found = explainable(models.resnet18(num_classes=CLASSES), size=(64, 64))
    assert repr(found) == (
        "Explainable(ResNet, layers=[layer1, layer2, layer3, layer4], size=(64, 64), multiple_of=1, "
        "preprocessing='assumed', output_shape=(5,))"
    )
    every = found.at([layer.name for layer in found.maps])
    assert len(repr(every)) < 300
    wrapped = explainable(build_model(FAMILIES["transformers swin"][0]))
    assert repr(wrapped).startswith("Explainable(SwinForImageClassification, layers=[swin.")
    assert len(repr(wrapped)) < 300


def test_the_passes_are_few() -> None:
    model = models.resnet18(num_classes=CLASSES)
    calls: list[torch.Size] = []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape))
    explainable(model)
    assert len(calls) <= 11


def test_other_layers_of_a_transformer() -> None:
    builder, size, _, _ = FAMILIES["transformers vit"]
    model = builder().eval()
    found = explainable(model, size=None if size is None else (size, size))
    images = torch.rand(1, 3, *found.size)
    for name in ("vit.layers.1.mlp.fc1", "vit.embeddings.patch_embeddings.projection"):
        other = found.at([name])
        assert other.target_layers == [model.get_submodule(name)]
        own = other.options | {"mask_layer": None}
        assert HolisticCAM(other.model, other.target_layers, num_scales=2, **own)(images).std() > 0
    with pytest.raises(ValueError, match="layers with prefix tokens can only be combined"):
        found.at(["vit.embeddings.patch_embeddings", "vit.layers.1"])


def test_a_stem_stays_where_there_are_few_stages() -> None:
    """Of small images networks enlarge little: CIFAR's ResNets begin at full resolution."""
    stages = [nn.Sequential(nn.Conv2d(i, o, 3, stride=s, padding=1), nn.ReLU()) for i, o, s in
              ((3, 4, 1), (4, 6, 2), (6, 8, 2))]  # fmt: skip
    model = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert explainable(model, size=(32, 32)).layer_names == ["0", "1", "2"]
    assert "features.1" not in explainable(models.squeezenet1_0()).layer_names  # 109 of 224 px


def test_a_model_output_whose_only_tensor_is_the_scores_has_logits():
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, CLASSES)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"last_hidden_state": self.head(self.stem(images).relu().mean(dim=(2, 3)))}

    model = build_model(Scores)
    found = explainable(model, size=(64, 64))
    assert (found.layer_names, found.output_shape) == (["stem"], (CLASSES,))
    assert torch.equal(found.model(image := torch.rand(1, 3, 64, 64)), model(image)["last_hidden_state"])


def test_maps_are_found_with_a_batch_of_two_where_memory_is_short():
    model = build_model(FAMILIES["timm resnet"][0])
    whole = explainable(model, size=(64, 64))

    def refuse(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(refuse)
    found = explainable(model, size=(64, 64))
    assert [layer.name for layer in found.maps] == [layer.name for layer in whole.maps]
    assert found.layer_names == whole.layer_names


def test_a_wrapped_backbone_of_two_stages_keeps_both() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
            self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())

        def forward(self, images: Tensor) -> Tensor:
            return self.second(self.first(images))

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = Backbone(), nn.Linear(12, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.backbone(images).mean((2, 3)))

    assert explainable(build_model(Classifier), size=(64, 64)).layer_names == ["backbone.first", "backbone.second"]


def test_the_finest_stage_of_a_u_net_is_its_features_not_its_scores() -> None:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
            self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
            self.up = nn.Sequential(nn.ConvTranspose2d(12, 8, 2, 2), nn.ReLU())
            self.mix = nn.Sequential(nn.Conv2d(16, 8, 3, 1, 1), nn.ReLU())
            self.scores = nn.Conv2d(8, CLASSES, 1)

        def forward(self, images: Tensor) -> Tensor:
            skipped = self.down(images)
            return self.scores(self.mix(torch.cat([skipped, self.up(self.deep(skipped))], 1)))

    found = explainable(build_model(UNet), size=(32, 32))
    assert found.output_shape == (CLASSES, 32, 32)
    assert found.layer_names == ["mix", "deep"]


def test_a_classifier_of_patches_takes_images() -> None:
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    text = {"hidden_size": 24, "num_attention_heads": 2, "bos_token_id": None, "eos_token_id": None}
    config = transformers.Siglip2Config(
        vision_config=vision | {"num_patches": 64, "patch_size": 8}, text_config=text, num_labels=CLASSES
    )
    model = build_model(lambda: transformers.Siglip2ForImageClassification(config))
    found = explainable(model)
    assert (found.size, found.multiple_of, found.output_shape) == ((64, 64), 8, (CLASSES,))
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    rows = [image[:, y : y + 8, x : x + 8].movedim(0, 2).flatten() for image in images
            for y in range(0, 64, 8) for x in range(0, 96, 8)]  # fmt: skip
    expected = model(
        pixel_values=torch.stack(rows).view(2, 96, -1),
        pixel_attention_mask=torch.ones(2, 96, dtype=torch.long),
        spatial_shapes=torch.tensor([[8, 12]] * 2),
    ).logits
    assert torch.allclose(found.model(images), expected, atol=1e-6)
    assert HolisticCAM(found.model, found.target_layers, sizes=[64, 96], **found.options)(images).shape == (2, 64, 96)


def test_a_model_of_tokens_is_refused_with_what_it_takes() -> None:
    model = build_model(
        lambda: transformers.ImageGPTForImageClassification(transformers.ImageGPTConfig(n_embd=16, n_layer=2, n_head=2))
    )
    with pytest.raises(TypeError, match="takes input_ids, not images: wrap it in a module whose forward converts"):
        explainable(model)


class OneScore(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).relu().mean((2, 3)))[:, 0]


def test_a_single_score_needs_an_axis_of_classes() -> None:
    with pytest.raises(TypeError, match=r"returned one number \(1,\) for one image: wrap it"):
        explainable(build_model(OneScore), size=(64, 64))


def test_layers_that_run_twice_are_named_as_the_cause() -> None:
    class Flipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            both = (self.stem(x).relu().mean((2, 3)) for x in (images, images.flip(-1)))
            return self.head(sum(both))

    with pytest.raises(ValueError, match="all of them run several times in a pass"):
        explainable(build_model(Flipped), size=(64, 64))


def test_lazy_layers_that_never_ran_are_named() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    for call in (lambda: explainable(model), lambda: HolisticCAM(model, [model[0]])):
        with pytest.raises(ValueError, match="lazy layers that were never run: call it once"):
            call()


def test_what_a_model_keeps_is_as_before() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, CLASSES)
            self.seen = torch.zeros(1)

        def forward(self, images: Tensor) -> Tensor:
            self.seen += 1
            noise = np.random.normal() + random.random()
            return self.head(self.stem(images).relu().mean((2, 3))) + 1e-6 * noise

    model = build_model(Counting)
    before = float(model.seen), np.random.get_state()[1].tolist(), random.getstate()
    explainable(model, size=(64, 64))
    assert before == (float(model.seen), np.random.get_state()[1].tolist(), random.getstate())
