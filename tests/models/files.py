"""A user's files: weights of a torchvision model for three classes, their names, a photo of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

MODEL = "squeezenet1_1"
CLASSES = ("ant", "bee", "hen")


def make_weights(folder: Path) -> Path:
    path = folder / "three_classes.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(torchvision.models.get_model(MODEL, weights=None, num_classes=len(CLASSES)).state_dict(), path)
    return path


def make_labels(folder: Path) -> Path:
    path = folder / "labels.txt"
    path.write_text("\n".join(CLASSES))
    return path


def make_photo(folder: Path) -> Path:
    path = folder / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((360, 240)).save(path)
    return path
