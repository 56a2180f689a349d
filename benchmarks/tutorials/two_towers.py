"""A small model of images and texts, such as "a green nine", trained on the bundled scenes in about a minute."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from holistic_cam_plugin.demo import SCENE_MEAN, SCENE_STD, Split, load_demo_model, make_scene, preprocess
from holistic_cam_plugin.models.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "SIZE", "TEXTS", "ColouredDigits", "TwoTowers", "draw_coloured_digits", "tokenize", "train"]

SIZE = 128  # side of the scenes in px
PREPROCESSING = Preprocessing(SCENE_MEAN, SCENE_STD, (SIZE, SIZE), SIZE, "bilinear", "bundled")
COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.75, 0.1), "blue": (0.1, 0.2, 0.95)}
_SHADES = 0.1  # largest change of a colour's channel
NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEXTS = [f"a {colour} {numeral}" for colour, numeral in product(COLOURS, NUMERALS)]
WORDS = ["a", *COLOURS, *NUMERALS]

_STAGES, _WIDTH, _FEATURES = 128, 128, 64  # channels
_BATCH, _RATE, _DECAY = 32, 4e-3, 0.05


class ColouredDigits(NamedTuple):
    """Scenes with two digits each.

    Attributes:
        images: the model's input, `(N, 3, SIZE, SIZE)`.
        labels: `(N, 2)`, int64, indices of the digits' texts.
        masks: `(N, 2, SIZE, SIZE)`, bool, the digits' strokes.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor


def draw_coloured_digits(split: Split, count: int) -> ColouredDigits:
    """Draw the first `count` scenes of the split."""
    images, labels, masks = [], [], []
    for number in tqdm(range(count), split, disable=not sys.stderr.isatty()):
        rng = np.random.default_rng([2, number])
        chosen = [int(index) for index in rng.integers(len(COLOURS), size=2)]
        shades = [
            np.clip(np.array([*COLOURS.values()][index]) + rng.uniform(-_SHADES, _SHADES, 3), 0, 1) for index in chosen
        ]
        scene = make_scene(rng, split, SIZE, 2, [(r, g, b) for r, g, b in shades])
        images.append(scene.image)
        labels.append([len(NUMERALS) * index + digit for index, digit in zip(chosen, scene.labels, strict=True)])
        masks.append(np.stack(scene.masks))
    return ColouredDigits(preprocess(np.stack(images)), torch.tensor(labels), torch.from_numpy(np.stack(masks)))


def tokenize(texts: Sequence[str]) -> Tensor:
    """Convert texts of three known words to their indices, `(N, 3)`."""
    return torch.tensor([[WORDS.index(word) for word in text.split()] for text in texts])


class TwoTowers(nn.Module):
    """Encodes images by three stages of the bundled classifier, and texts by their words, for a loss as SigLIP's.

    Args:
        attention: pool the maps by attention, as SigLIP does, instead of taking their maximum.
    """

    def __init__(self, attention: bool = False) -> None:
        super().__init__()
        self.trunk = load_demo_model().requires_grad_(False)
        self.head = nn.Sequential(
            nn.BatchNorm2d(_STAGES), nn.Conv2d(_STAGES, _WIDTH, 1), nn.ReLU(), nn.Conv2d(_WIDTH, _WIDTH, 1), nn.ReLU()
        )
        self.attention = nn.Conv2d(_WIDTH, 1, 1) if attention else None
        self.projection = nn.Linear(_WIDTH, _FEATURES)
        self.words = nn.EmbeddingBag(len(WORDS), _FEATURES, mode="sum")
        self.text = nn.Sequential(nn.Linear(_FEATURES, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _FEATURES))
        self.logit_scale = nn.Parameter(torch.tensor(2.3))
        self.logit_bias = nn.Parameter(torch.tensor(-6.0))

    def encode_stages(self, images: Tensor) -> Tensor:
        """Concatenate the maps of three stages at a stride of 16, `(B, 128, h, w)`: the first ones show colours."""
        trunk = self.trunk
        maps = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        first = trunk.layer1(maps)
        second = trunk.layer2(first)
        third = trunk.layer3(second)
        size = third.shape[-2:]
        fine = [F.adaptive_max_pool2d(stage, size) for stage in (first, second)]
        return torch.cat([*fine, third], dim=1)

    def pool(self, stages: Tensor) -> Tensor:
        """Compute features `(B, D)` of the maps: what is found anywhere counts."""
        maps = self.head(stages)
        if self.attention is None:
            pooled = maps.amax(dim=(2, 3))
        else:
            pooled = (maps * self.attention(maps).flatten(1).softmax(dim=1).view(-1, 1, *maps.shape[2:])).sum(
                dim=(2, 3)
            )
        features: Tensor = self.projection(pooled)
        return features

    def encode_image(self, images: Tensor) -> Tensor:
        """Compute features `(B, D)` of images of any size."""
        return self.pool(self.encode_stages(images))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Compute features `(N, D)` of tokens `(N, 3)`."""
        features: Tensor = self.text(self.words(tokens))
        return features

    def compare(self, images: Tensor, texts: Tensor) -> Tensor:
        """Compute logits `(B, N)` of features: the scaled cosine plus a bias."""
        return self.logit_scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T + self.logit_bias


def train(samples: ColouredDigits, steps: int, seed: int = 0, attention: bool = False) -> TwoTowers:
    """Train all but the trunk for `steps` batches: does the text describe a digit of the scene?"""
    torch.manual_seed(seed)
    model = TwoTowers(attention).train()
    model.trunk.eval()
    with torch.no_grad():
        stages = torch.cat([model.encode_stages(images) for images in samples.images.split(_BATCH)])
    present = torch.zeros(len(stages), len(TEXTS)).scatter_(1, samples.labels, 1.0)
    tokens = tokenize(TEXTS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.2)
    for _ in tqdm(range(steps), "training", disable=not sys.stderr.isatty()):
        chosen = torch.randint(len(stages), (_BATCH,))
        logits = model.compare(model.pool(stages[chosen]), model.encode_text(tokens))
        loss = F.binary_cross_entropy_with_logits(logits, present[chosen], reduction="none").sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.requires_grad_().eval()
