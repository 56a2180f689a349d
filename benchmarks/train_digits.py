"""Train the bundled classifier: `python -m benchmarks.train_digits`.

Every batch consists of new scenes of the training split, all of one random size. The same seed gives the same
weights on the same machine. `--image` makes the bundled picture instead.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from holistic_cam_plugin import demo
from holistic_cam_plugin.demo.digits_resnet import WEIGHTS, DigitsResNet
from holistic_cam_plugin.demo.preprocess import preprocess
from holistic_cam_plugin.demo.scenes import DEMO_IMAGE, Scene, make_demo_scene, make_scene
from holistic_cam_plugin.demo.sources import Split

__all__ = ["main", "measure_accuracy", "train"]

_SIZES = range(112, 225, 16)  # px
_BATCH = 32
_STEPS = 10_000
_EVALUATION = 2400  # held-out scenes; the 95 % interval is 0.7 % to either side at 97 %
_RATE, _DECAY = 2e-3, 0.2

# Average pooling passes little gradient to a digit that is a small part of the scene: training would stay at chance for
# thousands of steps. It therefore starts with close-ups.
_CLOSE_UPS = 0.1
_GROWTH = 1.5  # sizes grow, as small scenes take less time, until all occur after two thirds of the steps
_CLOSE_UP_SIZE = 64  # px


class _Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Batches of one-digit scenes by their number, whichever process makes them.

    With `growing`, close-ups come first, then larger and larger scenes; without, batches have any of the sizes.
    """

    def __init__(self, split: Split, batches: int, seed: int, growing: bool) -> None:
        self.split = split
        self.batches = batches
        self.seed = seed
        self.growing = growing

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        progress = index / self.batches if self.growing else 1.0
        size = int(rng.choice(_SIZES[: 1 + round(_GROWTH * progress * len(_SIZES))]))
        scenes = [make_scene(rng, self.split, size) for _ in range(_BATCH)]
        images = np.stack([_make_close_up(rng, scene) if progress < _CLOSE_UPS else scene.image for scene in scenes])
        return preprocess(images), torch.tensor([scene.labels[0] for scene in scenes])


def _make_close_up(rng: np.random.Generator, scene: Scene) -> NDArray[np.float32]:
    """Crop a square around the digit, up to twice as large as its box, and resize it to `(3, 64, 64)`."""
    size = scene.image.shape[-1]
    x0, y0, x1, y1 = scene.boxes[0]
    side = min(size, round(max(x1 - x0, y1 - y0) * rng.uniform(1.1, 2)))
    left, top = (
        int(np.clip(rng.integers(end - side, start, endpoint=True), 0, size - side))
        for start, end in ((x0, x1), (y0, y1))
    )
    square = scene.image[:, top : top + side, left : left + side].transpose(1, 2, 0)
    resized = cv2.resize(square, (_CLOSE_UP_SIZE, _CLOSE_UP_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(resized.transpose(2, 0, 1), np.float32)


def train(steps: int, seed: int = 0) -> DigitsResNet:
    """Train a network for `steps` batches and return it in evaluation mode."""
    torch.manual_seed(seed)
    model = DigitsResNet().train().to(memory_format=torch.channels_last)  # faster on a CPU
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=_CLOSE_UPS)
    batches = _load_batches("train", steps, seed, growing=True)
    for images, labels in tqdm(batches, "training", disable=not sys.stderr.isatty()):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def measure_accuracy(model: nn.Module, scenes: int, seed: int = 0) -> float:
    """Measure the accuracy, in [0, 1], on at least `scenes` held-out one-digit scenes of mixed sizes."""
    hits = [
        (model(images).argmax(dim=1) == labels).float().mean().item()
        for images, labels in _load_batches("held-out", -(-scenes // _BATCH), seed)
    ]
    return float(np.mean(hits))


def _load_batches(split: Split, batches: int, seed: int, growing: bool = False) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(_Scenes(split, batches, seed, growing), batch_size=None, num_workers=1, prefetch_factor=8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_digits", description=__doc__)
    parser.add_argument("--output", type=Path, help="file to write instead of the bundled one")
    parser.add_argument("--steps", type=int, default=_STEPS, help=f"batches of {_BATCH} scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", action="store_true", help="make the bundled picture instead of the weights")
    options = parser.parse_args(arguments)
    output = options.output or Path(demo.__file__).with_name(DEMO_IMAGE if options.image else WEIGHTS)
    if options.image:
        pixels = make_demo_scene().image.transpose(1, 2, 0)
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(output, optimize=True)
    else:
        # With one thread, sums are computed in the same order on any number of cores. Another process makes the scenes.
        torch.set_num_threads(1)
        _train_and_save(options.steps, options.seed, output)
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


def _train_and_save(steps: int, seed: int, output: Path) -> None:
    start = time.perf_counter()
    model = train(steps, seed)
    print(f"trained for {time.perf_counter() - start:.0f} s")
    # Half precision halves the file. The accuracy below is that of the rounded weights.
    weights = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save(weights, output)
    model.load_state_dict(weights)
    print(f"held-out accuracy {100 * measure_accuracy(model, _EVALUATION):.2f} % on {_EVALUATION} scenes")


if __name__ == "__main__":
    main()
