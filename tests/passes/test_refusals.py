"""Models, layers and inputs that cannot be explained: one line with the cause, before anything is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.ao import quantization
from torch.utils.checkpoint import checkpoint

from holistic_cam_plugin import HolisticCAM, explainable

SIZES = {"sizes": [64, 80]}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(nn.Module):
    """Two stages; the second one may run in a checkpoint."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head, self.reentrant = nn.Linear(8, 5), reentrant

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        if self.reentrant is None:
            maps = self.second(maps)
        else:
            maps = checkpoint(self.second, maps, use_reentrant=self.reentrant)
        return self.head(maps.mean((2, 3)))


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def refuse(model: nn.Module, layer: nn.Module, match: str, error: type[Exception] = ValueError, images=IMAGE) -> None:
    with pytest.raises(error, match=match) as raised:
        HolisticCAM(model, [layer], **SIZES)(images)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ("first", r"a target layer comes before a reentrant checkpoint, .*: pass use_reentrant=False to torch\.utils"),
        (
            "second",
            r"target layer 'second' \(Sequential\) runs in a reentrant checkpoint, .*: pass use_reentrant=False",
        ),
    ],
)
def test_reentrant_checkpoints(layer, match):
    model = Net(reentrant=True).eval()
    refuse(model, model.get_submodule(layer), match)
    with pytest.raises(ValueError, match="reentrant checkpoint"):
        explainable(model, size=(64, 64))
    plain, other = Net(), Net(reentrant=False)
    expected = HolisticCAM(plain, [plain.get_submodule(layer)], weighting="positive", **SIZES)(IMAGE)
    maps = HolisticCAM(other, [other.get_submodule(layer)], weighting="positive", **SIZES)(IMAGE)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_exported_programs():
    program = torch.export.export(Net().eval(), (IMAGE,))
    module = program.module()
    match = r"an exported program, .*: pass the torch\.nn\.Module that was exported, or torch\.export\.unflatten"
    refuse(module, module.second, match, TypeError)
    with pytest.raises(TypeError, match=match):
        explainable(module)
    unflattened = torch.export.unflatten(program)
    maps = HolisticCAM(unflattened, [unflattened.second], sizes=[64], weighting="positive")(IMAGE)
    model = Net().eval()
    expected = HolisticCAM(model, [model.second], sizes=[64], weighting="positive")(IMAGE)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_graphs_call_some_layers_only():
    graph = fx.symbolic_trace(Net().eval())
    match = r"does not call the target layer of type Module: pass one that it calls, such as second\.0, second\.1, head"
    refuse(graph, graph.second, match)
    maps = HolisticCAM(graph, [graph.get_submodule("second.1")], weighting="positive", **SIZES)(IMAGE)
    model = Net().eval()
    np.testing.assert_array_equal(maps, HolisticCAM(model, [model.second], weighting="positive", **SIZES)(IMAGE))


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 3, 3, padding=1), inner

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(self.stem(images))


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, IMAGE)])
def test_torchscript(make):
    scripted = make(Net().eval())
    match = r"of TorchScript, whose layers cannot be observed: pass the torch\.nn\.Module that was scripted or traced"
    refuse(scripted, scripted.second, match, TypeError)
    with pytest.raises(TypeError, match=match):
        explainable(scripted)
    outer = Around(scripted).eval()
    refuse(outer, outer.inner.second, r"a target layer is a \w+ of TorchScript, which cannot be observed", TypeError)
    assert HolisticCAM(outer, [outer.stem], weighting="positive", fsd=False, **SIZES)(IMAGE).max() == 1
    assert explainable(outer, size=(64, 64)).layer_names == ["stem"]


def quantise(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(*layers).eval()
    model[1].qconfig = model[0].qconfig = model[2].qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(model)
    prepared(IMAGE)
    return quantization.convert(prepared)


def test_models_of_integers():
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    stubs = quantization.QuantStub(), quantization.DeQuantStub()
    cause = "the model is quantised to integers, which have no gradients; pass the floating-point model"
    whole = quantise(stubs[0], nn.Conv2d(3, 8, 3, 2, 1), stubs[1], *tail)
    refuse(whole, whole[1], f"the model has no parameters: {cause}")
    half = quantise(stubs[0], nn.Conv2d(3, 8, 3, 2, 1), stubs[1], *tail, nn.Linear(8, 5))
    refuse(half, half[1], rf"returns torch\.quint8, which has no gradients: {cause}")
    # What follows the integers can be explained.
    assert HolisticCAM(half, [half[2]], weighting="positive", **SIZES)(IMAGE).shape == (1, 64, 64)
    dynamic = quantization.quantize_dynamic(Net().eval(), {nn.Linear})
    refuse(dynamic, dynamic.second, cause)


def test_models_and_images_without_values():
    model = Net().eval()
    refuse(model, model.second, r'input_tensor is on torch\.device\("meta"\), which has no', images=IMAGE.to("meta"))
    empty = Net().to("meta").eval()
    match = r'the model is on torch\.device\("meta"\), which has no weights: move it with model\.to_empty'
    refuse(empty, empty.second, match)
    with pytest.raises(ValueError, match=match):
        explainable(empty)
    layers = nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
    refuse(layers, layers[1], "the model has no parameters: pass a model with weights")


@pytest.mark.parametrize("mask_layer", [None, "deepest"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_of_another_dtype(dtype, mask_layer):
    model = Net().eval()
    match = f"input_tensor is {dtype}, the model's weights are torch.float32: pass input_tensor.to\\(torch.float32\\)"
    with pytest.raises(TypeError, match=match):
        HolisticCAM(model, [model.second], mask_layer=mask_layer, **SIZES)(IMAGE.to(dtype))
    half = Net().to(torch.bfloat16).eval()
    refuse(half, half.second, r"torch\.float32, the model's weights are torch\.bfloat16", TypeError)


def test_a_model_that_converts_its_images_takes_any_dtype():
    class Converts(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.float())

    model = Converts().eval()
    cam = HolisticCAM(model, [model.second], weighting="positive", **SIZES)
    np.testing.assert_allclose(cam(IMAGE.double()), cam(IMAGE), atol=1e-5)


@pytest.mark.parametrize("mask_layer", [None, "deepest"])
@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels(channels, mask_layer):
    model = Net().eval()
    match = rf"the model takes 3 channels, but axis 1 of input_tensor has {channels}: pass \(B, 3, H, W\)$"
    with pytest.raises(ValueError, match=match):
        HolisticCAM(model, [model.second], mask_layer=mask_layer, **SIZES)(torch.rand(2, channels, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_models_own_mistake_stays_its_own():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(4, 8, 3))
    with pytest.raises(RuntimeError, match="to have 4 channels, but got 8 channels instead"):
        HolisticCAM(model, [model[0]], **SIZES)(IMAGE)


class Frames(nn.Module):
    """Sees the frames of `(B, T, C, H, W)` as images of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, videos: Tensor) -> Tensor:
        return self.net(videos.flatten(0, 1)).unflatten(0, videos.shape[:2]).mean(1)


@pytest.mark.parametrize("frames", [1, 2, 8])
def test_frames_and_views_are_no_volumes(frames):
    model = Frames().eval()
    match = rf"\(2, {frames}, 3, 64, 64\) holds frames or views \(B, T, C, H, W\), as the model takes 3 chann"
    refuse(model, model.net.second, match, images=torch.rand(2, frames, 3, 64, 64))


def test_as_many_frames_as_channels_are_told_by_the_layer():
    model = Frames().eval()
    match = r"returns activations of shape \(3, 8, 16, 16\), not .*; it sees slices, frames or views as images of their"
    refuse(model, model.net.second, match, images=torch.rand(1, 3, 3, 64, 64))


def test_a_model_that_joins_its_images_to_one_row():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5), nn.Unflatten(0, (1, -1)), nn.Flatten(1))
    model(torch.rand(4, 3, 16, 16))
    with pytest.raises(ValueError, match="one row for several images, as if they were a bag"):
        HolisticCAM(model, [model[0]], sizes=[16], batch_size=4)(torch.rand(4, 3, 16, 16))


@pytest.mark.parametrize("mask_layer", [None, "deepest"])
def test_a_narrow_image_is_refused_before_anything_runs(mask_layer):
    model, runs = Net().eval(), []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    with pytest.raises(ValueError, match="an image of 1x256 px would be enlarged to 858x219684 px: crop or pad it, or"):
        HolisticCAM(model, [model.second], mask_layer=mask_layer)(torch.rand(1, 3, 1, 256))
    assert runs == []


def test_volumes_are_no_frames_whatever_layer_is_declared_first():
    class DecoderFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder, self.encoder = nn.Conv3d(8, 5, 1), nn.Conv3d(1, 8, 3, padding=1)

        def forward(self, images):
            return self.decoder(self.encoder(images).relu()).mean(dim=(2, 3, 4))

    model = DecoderFirst().eval()
    assert HolisticCAM(model, [model.encoder], num_scales=1)(torch.rand(1, 1, 8, 32, 32)).shape == (1, 8, 32, 32)
