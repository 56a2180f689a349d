"""A custom model, six images and an unreadable one, for every experiment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.harness.table_file import read_rows

ROOT = Path(__file__).parents[2]

MODEL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    stages = [(3, 5, 4), (5, 7, 2)]
    layers = [nn.Sequential(nn.Conv2d(i, o, 5, stride=s, padding=2), nn.ReLU()) for i, o, s in stages]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 6)).eval()

def number():
    return 3
"""
SIZE = 32
IMAGES = 6


@pytest.fixture
def common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for a model, images with a class and a box each, an unreadable image, and an output folder."""
    (tmp_path / "own_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in the tests' own process
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,class_index,x0,y0,x1,y1"]
    for number in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(images / f"{number}.png")
        lines.append(f"{number}.png,{number},4,4,20,28")
    (images / "broken.png").write_bytes(b"no image")
    (images / "labels.csv").write_text("\n".join([*lines, "broken.png,0,1,1,9,9"]) + "\n")
    output = str(tmp_path / "output")
    model = ["--model", "own_model:net", "--size", str(SIZE), "--layers", "1", "0", "--device", "cpu"]
    return [*model, "--images", str(images), "--output", output]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Output folder in `common`."""
    return tmp_path / "output"


@pytest.fixture
def rows(output: Path) -> Callable[[str], list[dict[str, str]]]:
    """Reads the rows of a table by its name without `.csv`."""
    return lambda name: read_rows(output / f"{name}.csv")


class Subject(NamedTuple):
    """The model, an image and a target."""

    model: nn.Module
    image: Tensor
    target: ClassifierOutputTarget


@pytest.fixture
def subject(common: list[str]) -> Subject:
    """Input of the functions behind the commands."""
    import own_model

    model = own_model.net()
    return Subject(model, torch.randn(1, 3, SIZE, SIZE), ClassifierOutputTarget(2))
