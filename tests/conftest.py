"""Tiny random nets, and the literal reference: the method in slow motion, sharing no code with the package."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn
from torch.nn import functional as F

from holistic_cam_plugin.models.check_batch import trust_batch
from holistic_cam_plugin.models.check_geometry import trust_layers

# Fixtures that live beside this file.
pytest_plugins = ["tests.browser"]

# pytest runs one process per core, and on nets as small as these threads mostly wait for one another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line says nothing about the machine's network."""
    monkeypatch.setattr("holistic_cam_plugin.cli.hints.is_reachable", lambda _: True)


class Staged(nn.Module):
    """Three stages, global average pooling, a linear head: a classifier for any image size."""

    def __init__(
        self, layer1: nn.Module, layer2: nn.Module, layer3: nn.Module, channels: int, classes: int = 6
    ) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3 = layer1, layer2, layer3
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.layer2(self.layer1(x))))


class Residual(nn.Module):
    """A block as in torchvision's ResNet: its ReLUs work in place."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride=2, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.relu(out)


def plain_net() -> nn.Module:
    def stage(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())

    return Staged(stage(3, 6), stage(6, 8), stage(8, 10), 10)


def residual_net() -> nn.Module:
    net = Staged(Residual(3, 6), Residual(6, 8), Residual(8, 10), 10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.05, 0.3)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return net


def signed_net() -> nn.Module:
    def stage(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.SiLU(), nn.Conv2d(i, o, 3, stride=2, padding=1))

    return Staged(stage(3, 6), stage(6, 8), stage(8, 10), 10)


NETS = {"plain": plain_net, "residual": residual_net, "signed": signed_net}


@pytest.fixture
def make_net() -> Callable[[str], nn.Module]:
    """A net by name, always with the same weights, in evaluation mode. Its layers need no check, which is a pass."""

    def make(name: str = "plain") -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            net = NETS[name]().eval()
        trust_layers(list(net.modules()), None)
        trust_batch(net)
        return net

    return make


@pytest.fixture(params=NETS)
def any_net(request: pytest.FixtureRequest, make_net: Callable[[str], nn.Module]) -> nn.Module:
    """Each of the nets in turn: post-ReLU activations; in-place ReLUs and batch norm; signed activations."""
    return make_net(request.param)


@pytest.fixture
def net(make_net: Callable[[str], nn.Module]) -> nn.Module:
    return make_net("plain")


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    """Smooth random images with one brighter blob, as `(B, 3, H, W)`."""

    def make(batch: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(batch, 3, 6, 6, generator=generator)
        y, x = torch.rand(2, batch, 1, 1, 1, generator=generator) * 0.6 + 0.2
        rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
        blob = 2 * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.03)
        return F.interpolate(coarse, size=(height, width), mode="bicubic") + blob

    return make


@pytest.fixture
def images(make_images: Callable[..., Tensor]) -> Tensor:
    return make_images(2)


@pytest.fixture
def seen() -> Iterator[Callable[[nn.Module], list[tuple[int, ...]]]]:
    """The shapes of all inputs that a model gets from now on."""
    handles = []

    def watch(model: nn.Module) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []
        handles.append(model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape))))
        return shapes

    yield watch
    for handle in handles:
        handle.remove()


@pytest.fixture
def reference() -> Callable[..., np.ndarray]:
    """The method, literally, in float64: images to maps `(B, H, W)`."""
    return reference_maps


def reference_maps(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    categories: Sequence[int] | None = None,
    *,
    num_scales: int = 7,
    max_size: int = 1000,
    sizes: Sequence[int] | None = None,
    eps: float = 1e-5,
    weights: str = "pge",
    fsd: bool = True,
    interpolation: str = "bilinear",
    mask_layer: str | None = None,
    contrast: float = 0.0,
    fuse_base: bool = True,
    by_positions: bool = False,
) -> np.ndarray:
    model = copy.deepcopy(model).double().eval().requires_grad_(True)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if sizes is None:
        sizes = [shorter + Fraction(max_size, num_scales) * (t - 1) for t in range(1, num_scales + 1)]
    results = []
    for image in images.double().split(1):
        category = int(model(image).argmax()) if categories is None else categories[len(results)]
        scales = []  # [scale][layer] -> A_t, W_t on the canvas
        deepest = []  # [scale] -> A_t, G_t, |A_t|, |G_t| of the mask layer on the canvas
        for zeta in sizes:
            size = (int(height * Fraction(zeta) / shorter), int(width * Fraction(zeta) / shorter))
            scaled = F.interpolate(image, size=size, mode=interpolation, align_corners=False)
            on_canvas = []
            recorded = hooked_pass(model, [*layers, *([mask_layer] if mask_layer else [])], scaled, category)
            if mask_layer:
                activations, gradients = recorded.pop()
                four = (activations, gradients, activations.abs(), gradients.abs())
                deepest.append([to_canvas(x, (height, width)) for x in four])
            for activations, gradients in recorded:
                if weights in ("pge", "positive"):  # both signs as channels of their own
                    activations = torch.cat([activations.relu(), (-activations).relu()], dim=1)
                    gradients = torch.cat([gradients, -gradients], dim=1)
                weighed = LITERAL_WEIGHTS[weights](activations, gradients, eps)
                if by_positions:
                    weighed = weighed * weighed.shape[2] * weighed.shape[3]
                on_canvas.append([to_canvas(x, (height, width)) for x in (activations, weighed)])
            scales.append(on_canvas)
        maps = []
        for layer in range(len(layers)):
            fused = scales if fuse_base else scales[1:]
            mean_a, mean_w = (np.mean([scale[layer][i] for scale in fused], axis=0) for i in (0, 1))
            primary = np.maximum((mean_w * mean_a).sum(axis=0), 0)
            if mask_layer:
                means = [np.mean([scale[i] for scale in deepest], axis=0) for i in range(4)]
                base = np.maximum((means[0] * means[1]).sum(axis=0), 0)
                base = base * (base / (means[2] * means[3]).sum(axis=0)) ** contrast
            else:
                base = np.maximum((scales[0][layer][1] * scales[0][layer][0]).sum(axis=0), 0)
            maps.append(min_max(primary * literal_wrap(base, shorter) if fsd else primary))
        results.append(min_max(np.mean(maps, axis=0)))
    return np.stack(results)


def hooked_pass(model: nn.Module, layers: Sequence[str], image: Tensor, category: int) -> list[list[Tensor]]:
    outputs: dict[str, Tensor] = {}
    handles = []
    for name in dict.fromkeys(layers):

        def keep(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            output.retain_grad()
            outputs[name] = output

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    model(image)[0, category].backward()
    for handle in handles:
        handle.remove()
    return [[outputs[name].detach(), outputs[name].grad] for name in layers]


def literal_pge(activations: Tensor, gradients: Tensor, eps: float) -> Tensor:
    total = activations.sum(dim=(2, 3), keepdim=True).clamp(min=0)
    alpha = gradients**2 / (2 * gradients**2 + gradients**3 * total + eps)
    return alpha * gradients.relu()


LITERAL_WEIGHTS = {
    "pge": literal_pge,
    "positive": lambda activations, gradients, eps: gradients.relu(),
    "gradient": lambda activations, gradients, eps: gradients,
}


def to_canvas(x: Tensor, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)[0].numpy()


def literal_wrap(base: np.ndarray, shorter: int) -> np.ndarray:
    odd = range(3, 255, 2)
    blur_size, ksize = (min(odd, key=lambda n: (abs(n - full * shorter / 224), -n)) for full in (51, 91))
    low, middle = base.min(), (base.max() + base.min()) / 2
    if middle == low:
        return np.ones_like(base)
    levels = np.uint8(np.rint((np.minimum(base, middle) - low) / (middle - low) * 255))
    median = low + cv2.medianBlur(levels, blur_size).astype(np.float64) / 255 * (middle - low)
    wrap = uniform_filter(median, ksize, mode="mirror")
    return wrap if wrap.max() > 0 else np.ones_like(base)


def min_max(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else np.zeros_like(x)
