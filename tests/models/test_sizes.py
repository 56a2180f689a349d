"""Which images a model takes: its size, other sizes, the number of channels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from holistic_cam_plugin import ClassHolisticCAM, explainable
from holistic_cam_plugin.models.preserve import preserve_model
from holistic_cam_plugin.models.probe import make_noise
from holistic_cam_plugin.models.sizes import find_size_multiple, record_larger, run_first_size


def sizes_of(model: nn.Module, side: int) -> tuple[tuple[int, int] | None, int | None]:
    with preserve_model(model):
        image = make_noise(model, (side, side), 3)
        recorded = record_larger(model, image)
        return (None, None) if recorded is None else (recorded[0], find_size_multiple(model, image))


class Checked(nn.Module):
    """Accepts the sizes that a rule accepts."""

    def __init__(self, rule) -> None:
        super().__init__()
        self.rule, self.stem, self.head, self.seen = rule, nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 5), []

    def forward(self, images: Tensor) -> Tensor:
        if not self.rule(*images.shape[2:]):
            raise RuntimeError("another size, please")
        return self.head(F.relu(self.stem(images)).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("rule", "larger", "multiple"),
    [
        (lambda h, w: True, (192, 192), 1),
        (lambda h, w: h % 32 == w % 32 == 0, (192, 192), 32),
        (lambda h, w: h % 12 == w % 12 == 0, (192, 192), 12),
        (lambda h, w: (h, w) == (96, 96), None, None),
        (lambda h, w: h // 16 == w // 16 == 6, None, None),  # patches that round down
        (lambda h, w: h <= 110, None, None),  # a table of positions that ends
        (lambda h, w: h <= 160, None, None),
        (lambda h, w: (h // 8) % 2 == 0, (192, 192), 16),  # 97 and 98 px round down, others do not
    ],
)
def test_what_the_sides_may_grow_by(rule, larger, multiple):
    assert sizes_of(Checked(rule), 96) == (larger, multiple)


def test_no_memory_for_a_much_larger_image_means_one_size():
    def rule(height: int, width: int) -> bool:
        if height > 120:
            raise MemoryError("out of memory")
        return True

    assert sizes_of(Checked(rule), 96) == (None, None)


def test_a_lenet_of_one_size_has_its_tiles():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(6 * 64, 10)
    ).eval()
    found = explainable(model, size=(32, 32))
    assert found.multiple_of is None
    assert ClassHolisticCAM(found.model, found.target_layers, **found.options)(torch.randn(1, 3, 32, 32)).shape == (
        1, 32, 32,
    )  # fmt: skip


@pytest.mark.parametrize("place", ["config", "vision_config", "img_size", "pretrained_cfg"])
def test_the_size_of_a_model_inside_a_wrapper_is_found(place):
    inner = Checked(lambda h, w: (h, w) == (336, 336))
    if place == "config":
        inner.config = SimpleNamespace(image_size=336)
    elif place == "vision_config":
        inner.config = SimpleNamespace(vision_config=SimpleNamespace(image_size=336))
    elif place == "img_size":
        inner.stem.img_size = (336, 336)
    else:
        inner.pretrained_cfg = {"input_size": (3, 336, 336)}
    model = AveragedModel(nn.Sequential(nn.Identity(), inner)).eval()
    inner = model.module[1]
    refused: list[tuple[int, ...]] = []
    inner.rule = lambda h, w: (h, w) == (336, 336) or refused.append((h, w))
    with preserve_model(model):
        image, _ = run_first_size(model, None)
    assert image.shape == (1, 3, 336, 336)
    assert refused == []  # not found by trying


def test_336_px_are_tried():
    with preserve_model(model := Checked(lambda h, w: (h, w) == (336, 336))):
        assert run_first_size(model, None)[0].shape == (1, 3, 336, 336)


class Stem(nn.Module):
    """Modules in another order than they run in."""

    def __init__(self, first: nn.Module, convolution: nn.Conv2d, prepare) -> None:
        super().__init__()
        self.first, self.convolution, self.prepare = first, convolution, prepare
        self.head = nn.Linear(convolution.out_channels, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.convolution(self.prepare(images))).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("first", "convolution", "prepare", "channels"),
    [
        (nn.Identity(), nn.Conv2d(4, 8, 3), lambda x: x, 4),
        (nn.Identity(), nn.Conv2d(1, 8, 3), lambda x: x, 1),
        (nn.Conv2d(64, 8, 1), nn.Conv2d(3, 8, 3), lambda x: x, 3),  # defined first, runs never
        (nn.Identity(), nn.Conv2d(48, 8, 3), lambda x: F.pixel_unshuffle(x, 4), 3),
        (nn.Identity(), nn.Conv2d(16, 8, 3), lambda x: F.pixel_unshuffle(x, 4), 1),
        (nn.Identity(), nn.Conv2d(1, 8, 3), lambda x: (x - torch.zeros(3, 1, 1)).mean(1, keepdim=True), 3),
    ],
)
def test_the_channels_are_those_that_the_model_takes(first, convolution, prepare, channels):
    model = Stem(first, convolution, prepare).eval()
    found = explainable(model, size=(64, 64))
    assert len(found.preprocessing.mean) == channels
    maps = ClassHolisticCAM(found.model, found.target_layers, **found.options)(torch.randn(1, channels, 64, 64))
    assert maps.shape == (1, 64, 64)


def test_a_tensor_that_the_model_keeps_is_no_inference_tensor():
    class Anchored(Checked):
        kept: ClassVar[dict[tuple[int, ...], Tensor]] = {}  # of the class: nothing restores it

        def forward(self, images: Tensor) -> Tensor:
            maps = F.relu(self.stem(images))
            size = tuple(maps.shape[2:])
            if size not in self.kept:
                self.kept[size] = torch.rand(1, 1, *size)
            return self.head((maps * self.kept[size]).mean(dim=(2, 3)))

    model = Anchored(None).eval()
    with torch.inference_mode():
        found = explainable(model, size=(64, 64))
    assert Anchored.kept
    assert not any(tensor.is_inference() for tensor in Anchored.kept.values())
    assert ClassHolisticCAM(found.model, found.target_layers, **found.options)(torch.randn(1, 3, 64, 64)).max() == 1


def test_volumes_and_other_inputs_are_told_apart():
    volumes = nn.Sequential(nn.Conv3d(3, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten()).eval()
    with pytest.raises(ValueError, match=r"has 3-D convolutions: for volumes and videos .* name a layer yourself"):
        explainable(volumes)
    words = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(4, 5)).eval()
    with pytest.raises(ValueError, match=r"pass size=.*, or a wrapper that takes images alone"):
        explainable(words)


# --- stages ----------------------------------------------------------------------------------------------------------
class Tupled(nn.Module):
    """Stages that return maps and a token, as pit's."""

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(8, 8, 2, 2), nn.BatchNorm2d(8)

        def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            maps = F.relu(self.norm(self.convolution(state[0])))
            return maps, state[1] + maps.mean(dim=(2, 3))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stages, self.head = nn.Conv2d(3, 8, 4, 4), nn.ModuleList([self.Stage(), self.Stage()]), None
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        state = (F.relu(self.stem(images)), torch.zeros(1, 8))
        for stage in self.stages:
            state = stage(state)
        return self.head(state[1])


def test_stages_that_return_tuples_are_represented_by_a_layer_inside():
    torch.manual_seed(0)
    assert explainable(Tupled().eval(), size=(64, 64)).layer_names == ["stem", "stages.0.norm", "stages.1.norm"]


def test_a_norm_with_channels_last_at_the_end_of_convolutions():
    class Nest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 12, 2, 2))
            self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

        def forward(self, images: Tensor) -> Tensor:
            last = self.norm(self.levels(images).permute(0, 2, 3, 1))
            return self.head(last.relu().mean(dim=(1, 2)))

    torch.manual_seed(0)
    found = explainable(Nest().eval(), size=(96, 96))
    assert found.layer_names[-1] == "norm"
    assert len(found.layer_names) > 1
    for size in ((96, 96), (96, 160)):
        maps = ClassHolisticCAM(found.model, found.target_layers, sizes=[96], **found.options)(torch.randn(1, 3, *size))
        assert maps.shape == (1, *size)


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("pit_ti_224", {}, ["transformers.0.blocks", "transformers.1.blocks", "transformers.2.blocks.3.norm1"]),
        ("nest_tiny", {}, None),
        ("crossvit_tiny_240", {}, ["blocks.2.fusion.1.norm1", "blocks.2.fusion.0.norm1"]),
        ("hiera_tiny_224", {"embed_dim": 24, "stages": (1, 1, 1, 1)}, None),
    ],
)
def test_families_of_timm_with_stages_of_their_own(name, options, layers):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    found = explainable(model)
    assert found.multiple_of is None
    assert layers is None or found.layer_names == layers
    grids = [next(layer.grid for layer in found.maps if layer.name == each) for each in found.layer_names]
    assert grids == sorted(grids, reverse=True)
    assert grids[-1] == min(layer.grid for layer in found.maps)


def test_a_head_that_begins_with_zeros_hides_no_layers():
    model = timm.create_model("gmlp_ti16_224", img_size=64, num_classes=5).eval()
    assert not any(parameter.any() for parameter in model.head.parameters())
    found = explainable(model, size=(64, 64))
    assert found.layer_names[-1] == "norm"
    assert not any(parameter.any() for parameter in model.head.parameters())  # as before


def test_the_mask_layer_of_crossvit_is_the_layer_that_finishes_last():
    torch.manual_seed(0)
    found = explainable(timm.create_model("crossvit_tiny_240", num_classes=5).eval())
    order = [layer.name for layer in found.maps]
    assert found.deepest.name == max(found.layer_names, key=order.index)


def test_a_model_of_full_resolution_takes_any_size() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    found = explainable(model.eval(), size=(32, 32))
    assert (found.multiple_of, "tiles" in found.options) == (1, False)


def test_a_model_with_an_upper_size_is_of_one_size() -> None:
    class Cifar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(nn.functional.avg_pool2d(self.features(images).relu(), 4).flatten(1))

    assert explainable(Cifar().eval(), size=(32, 32)).multiple_of is None
