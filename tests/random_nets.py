"""Random tiny nets and calls, for property tests: what a strategy draws is told in a line when a test fails."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

# The same examples in every run; HOSTILE_ROUNDS multiplies them.
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))
CLASSES = 4
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Net(nn.Module):
    """Stages, global pooling, a linear head; `inplace` changes its own input as careless models do."""

    def __init__(self, stages: list[nn.Module], channels: int, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.25).div_(0.5) if self.inplace else (x - 0.25) / 0.5
        return self.head(self.stages(x).mean(dim=(2, 3)))


class Drawn(NamedTuple):
    """A net as a strategy draws it."""

    seed: int
    stages: tuple[tuple[str, int, int, int], ...]  # kind, channels, kernel, stride
    head: str  # random, constant (no input matters) or large
    inputs: int  # channels of the images
    dtype: str

    def net(self, inplace: bool = False) -> Net:
        """In evaluation mode, always with the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            channels, stages = self.inputs, []
            for kind, out, kernel, stride in self.stages:
                stages.append(_stage(kind, channels, out, kernel, stride))
                channels = out
            net = Net(stages, channels, inplace)
        with torch.no_grad():
            net.head.weight.mul_({"random": 1, "constant": 0, "large": 1000}[self.head])
        return net.to(DTYPES[self.dtype]).eval()

    def images(self, batch: int, height: int, width: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.rand(batch, self.inputs, height, width, generator=generator).to(DTYPES[self.dtype])


def _stage(kind: str, channels: int, out: int, kernel: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2)
    if kind == "norm":
        norm = nn.BatchNorm2d(out)
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.05, 0.3)
        return nn.Sequential(conv, norm, nn.ReLU(inplace=True))
    after = {"relu": nn.ReLU(), "signed": nn.Identity(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "gelu": nn.GELU()}
    return nn.Sequential(conv, after[kind])


_kinds = st.sampled_from(["relu", "norm", "signed", "sigmoid", "tanh", "gelu"])
_stages = st.tuples(_kinds, st.integers(1, 5), st.sampled_from([1, 3]), st.sampled_from([1, 2]))
_sides = st.one_of(st.sampled_from([1, 2, 3, 16]), st.integers(1, 40))


@st.composite
def nets(draw: Any, dtypes: tuple[str, ...] = tuple(DTYPES)) -> Drawn:
    """Nets of one to three stages."""
    return Drawn(
        draw(st.integers(0, 999)),
        tuple(draw(st.lists(_stages, min_size=1, max_size=3))),
        draw(st.sampled_from(["random", "random", "large", "constant"])),
        draw(st.sampled_from([3, 1, 4])),
        draw(st.sampled_from(dtypes)),
    )


sizes = st.tuples(_sides, _sides)

options = st.fixed_dictionaries(
    {"weighting": st.sampled_from(["pge", "positive", "gradient"]), "fsd": st.booleans()},
    optional={
        "eps": st.sampled_from([0, 1e-5, 1.0]),
        "interpolation": st.sampled_from(["bilinear", "bicubic"]),
        "blur_size": st.sampled_from([1, 3, 255]),
        "ksize": st.sampled_from([1, 3, 255]),
    },
).flatmap(
    lambda fixed: st.one_of(
        st.lists(st.integers(1, 50), min_size=1, max_size=3).map(lambda some: {**fixed, "sizes": some}),
        st.tuples(st.integers(1, 3), st.integers(1, 40)).map(
            lambda pair: {**fixed, "num_scales": pair[0], "max_size": pair[1]}
        ),
    )
)


@st.composite
def targets(draw: Any, batch: int) -> list[Any] | None:
    """None, one target an image, or lists of them."""
    classes = st.integers(0, CLASSES - 1).map(ClassifierOutputTarget)
    many = st.lists(st.lists(classes, min_size=1, max_size=3), min_size=batch, max_size=batch)
    found: list[Any] | None = draw(st.one_of(st.none(), st.lists(classes, min_size=batch, max_size=batch), many))
    return found


def count(chosen: list[Any] | None, batch: int) -> int:
    """How many maps these targets give."""
    return sum(len(some) if isinstance(some, list) else 1 for some in chosen) if chosen else batch


def tried(examples: int) -> settings:
    """How often a property is tried: always with the same examples."""
    return settings(
        max_examples=examples * ROUNDS,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def assert_sound(maps: np.ndarray, shape: tuple[int, int, int]) -> None:
    assert maps.shape == shape
    assert maps.dtype == np.float32
    assert maps.flags.c_contiguous
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1
