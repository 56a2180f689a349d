"""Texts such as "a green nine", each explained on scenes that show what another text says, too.

Train the model of `benchmarks.tutorials.two_towers`, print how often it finds the texts of held-out scenes, measure the
maps, and draw `texts.png`. The measure is the average precision (AP) of a map as a ranking of the strokes of both
digits, where those of the named digit should come first, and of all pixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from benchmarks.tutorials.two_towers import (
    PREPROCESSING,
    SIZE,
    TEXTS,
    ColouredDigits,
    draw_coloured_digits,
    tokenize,
    train,
)
from holistic_cam_plugin import ClassHolisticCAM, Explainable, HolisticCAM, explainable
from holistic_cam_plugin.metrics import average_precision

__all__ = ["explain", "main", "measure_strokes"]

Maps = NDArray[np.float32]
Method = Callable[[Explainable, nn.Module, Sequence[int]], Any]

LAYERS = ("trunk.layer2", "trunk.layer3")
METHODS: dict[str, Method] = {
    "Grad-CAM": lambda found, layer, sizes: GradCAM(found.model, [layer]),
    "HolisticCAM": lambda found, layer, sizes: HolisticCAM(found.model, [layer], sizes=sizes),
    # The mask layer is the one before the pooling.
    "ClassHolisticCAM": lambda found, layer, sizes: ClassHolisticCAM(
        found.model, [layer], mask_layer=found.model.get_submodule("head"), sizes=sizes
    ),
}


def explain(found: Explainable, name: str, method: str, image: Tensor, labels: Sequence[int], sizes: Any) -> Maps:
    """Compute the maps of an image `(1, 3, H, W)` for several texts, `(texts, H, W)`."""
    cam = METHODS[method](found, found.model.get_submodule(name), sizes)
    targets = [ClassifierOutputTarget(label) for label in labels]
    maps: Maps = cam(image.repeat(len(labels), 1, 1, 1), targets)
    return maps


def measure_strokes(maps: Maps, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure the AP of each digit's strokes among those of all digits.

    Args:
        maps: a map for each digit, `(digits, H, W)`.
        masks: the digits' strokes, `(digits, H, W)`.
    """
    strokes = masks.any(axis=0)
    return average_precision(maps[:, None, strokes], list(masks[:, None, strokes]))


@torch.no_grad()
def find_texts(found: Explainable, samples: ColouredDigits) -> Tensor:
    """Whether each of a scene's two texts is among its two best ones, `(N, 2)`, bool."""
    best = torch.cat([found.model(images).topk(2).indices for images in samples.images.split(50)])
    return (best[:, :, None] == samples.labels[:, None]).any(dim=1)


def draw(path: Path, found: Explainable, samples: ColouredDigits, indices: Sequence[int], sizes: Any) -> None:
    """Write the figure, with a row per scene: the picture, and the maps of both texts in the deeper layer."""
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(9.6, 1.62 * len(indices)), dpi=110, layout=layout)
    grid = figure.subplots(len(indices), 1 + 2 * len(METHODS), squeeze=False)
    for axes, index in zip(grid, indices, strict=True):
        image, labels = samples.images[index, None], samples.labels[index].tolist()
        picture = PREPROCESSING.denormalize(image)
        maps = [explain(found, LAYERS[-1], method, image, labels, sizes) for method in METHODS]
        axes[0].imshow(picture)
        for axis, (text, method) in zip(axes[1:], product(range(2), range(len(METHODS))), strict=True):
            axis.imshow(show_cam_on_image(picture, maps[method][text], use_rgb=True))
            axis.set_title(f'"{TEXTS[labels[text]]}"', fontsize=7, pad=2)
            axis.set_xlabel([*METHODS][method], fontsize=7, labelpad=2)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials.texts", description=__doc__)
    parser.add_argument("--scenes", type=int, default=2400, help="number of training scenes (%(default)s)")
    parser.add_argument("--held-out", type=int, default=300, help="number of held-out scenes (%(default)s)")
    parser.add_argument("--explained", type=int, default=60, help="number of held-out scenes to explain (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="training steps (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", help="sizes of the pyramid in pixels (128 to 256)")
    parser.add_argument("--attention", action="store_true", help="pool the maps by attention, not by their maximum")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output"))
    options = parser.parse_args(arguments)
    sizes = options.sizes or (SIZE, 192, 256)
    start = time.perf_counter()
    model = train(draw_coloured_digits("train", options.scenes), options.steps, options.seed, options.attention)
    print(f"scenes drawn and model trained in {time.perf_counter() - start:.0f} s")
    held_out = draw_coloured_digits("held-out", options.held_out)
    found = explainable(model, PREPROCESSING, text=TEXTS, tokenizer=tokenize, size=(SIZE, SIZE))
    right = find_texts(found, held_out)
    accuracy = f"{right.float().mean():.1%} of the texts of {len(right)} held-out scenes"
    print(f"{accuracy} are among the two best of {len(TEXTS)}")
    # Scenes with both texts found come first, in a stable order.
    order = right.sum(dim=1).argsort(descending=True, stable=True)[: options.explained].tolist()
    print(f"AP of the named digit's strokes, {len(order)} scenes: among those of both digits, and among all pixels")
    for layer, method in product(LAYERS, METHODS):
        among_strokes, among_all = [], []
        for index in order:
            image, labels = held_out.images[index, None], held_out.labels[index].tolist()
            maps, masks = explain(found, layer, method, image, labels, sizes), held_out.masks[index].numpy()
            among_strokes.append(measure_strokes(maps, masks))
            among_all.append(average_precision(maps, list(masks)))
        print(f"    {layer:14} {method:18} {np.mean(among_strokes):.1%}   {np.mean(among_all):.1%}")
    path = options.output / "texts.png"
    draw(path, found, held_out, order[:3], sizes)
    print(path)


if __name__ == "__main__":
    main()
