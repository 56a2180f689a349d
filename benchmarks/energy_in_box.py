"""Share of each map's energy inside the digit's box, on scenes whose boxes are known.

`python -m benchmarks.energy_in_box` prints a table, a row a layer and a column a method, and writes the share of every
digit to a CSV file. A digit's share is the sum of its map inside its box over the sum of the whole map. The box's own
share of the image is printed too: a constant map would score that.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.harness.methods import Explained, explained
from holistic_cam_plugin.demo import Box, Scene, load_demo_model, make_scene, preprocess
from holistic_cam_plugin.metrics import energy_pointing_game

__all__ = ["METHODS", "Row", "energy_in_box", "main", "measure", "table"]

Map = NDArray[np.float32]
METHODS = ("Grad-CAM", "Grad-CAM++", "Layer-CAM", "CAMERAS", "Holistic-CAM")
BOX = "box alone"  # the share of a constant map


class Row(NamedTuple):
    """One digit of one scene under one method; the fields are the columns of the CSV file."""

    scene: int
    digits: int
    digit: int
    label: int
    predicted: int
    layer: str
    method: str
    energy: float  # share inside the digit's own box, in [0, 1]; 0 for an empty map
    energy_other: float  # share inside the other digit's box; 0 if there is none


def energy_in_box(saliency_map: Map, box: Box) -> float:
    """Share of the map's sum that lies inside the box, in [0, 1]; an empty map has none.

    Args:
        saliency_map: `(H, W)`, not negative.
        box: x0, y0, x1, y1 in pixels, x1 and y1 outside.
    """
    return float(energy_pointing_game(saliency_map[None], [box])[0])


def measure(model: nn.Module, scenes: Iterable[Scene], layers: Sequence[str]) -> Iterator[Row]:
    """Every digit of every scene under every method at every layer; the target is the digit's own class.

    A map that is constant, for want of any evidence, counts as a share of 0; that is no warning here.
    """
    for number, scene in enumerate(scenes):
        image = preprocess(scene.image)
        with torch.inference_mode():
            predicted = int(model(image).argmax())
        for digit, label in enumerate(scene.labels):
            maps = {("", BOX): np.ones(scene.image.shape[-2:], np.float32)} | _maps(model, layers, image, label)
            for (layer, method), saliency_map in maps.items():
                shares = [energy_in_box(saliency_map, box) for box in scene.boxes]
                own = shares.pop(digit)
                yield Row(number, len(scene.labels), digit, label, predicted, layer, method, own, sum(shares))


def _maps(model: nn.Module, layers: Sequence[str], image: Tensor, label: int) -> Explained:
    """The maps of one class, `(H, W)` each, by layer and method."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="a saliency map is constant")
        return explained(model, layers, METHODS, image, ClassifierOutputTarget(label))


def table(rows: Sequence[Row], layers: Sequence[str]) -> str:
    """Markdown: the mean share in percent and its 95 % interval over the scenes, a row a layer, a column a method."""
    return _table_of(_interval, rows, layers)


def _table_of(cell: Callable[[Sequence[Row]], str], rows: Sequence[Row], layers: Sequence[str]) -> str:
    lines = [f"| layer | {' | '.join(METHODS)} |", f"|---|{'---|' * len(METHODS)}"]
    for layer in layers:
        cells = [cell([row for row in rows if (row.layer, row.method) == (layer, name)]) for name in METHODS]
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(rows: Sequence[Row]) -> str:
    """Mean and half the width of the normal interval. The digits of one scene are averaged first: they depend."""
    by_scene: dict[int, list[float]] = {}
    for row in rows:
        by_scene.setdefault(row.scene, []).append(row.energy)
    shares = 100 * np.array([np.mean(energies) for energies in by_scene.values()])
    spread = shares.std(ddof=1) / len(shares) ** 0.5 if len(shares) > 1 else np.nan
    return f"{shares.mean():.1f} ± {1.96 * spread:.1f}"


def _report(rows: Sequence[Row], layers: Sequence[str]) -> None:
    box = [row for row in rows if row.method == BOX]
    scenes = len({row.scene for row in box})
    print(f"\n{scenes} scenes, digits in each: {box[0].digits}\n\n{table(rows, layers)}\n")
    labels = {(row.scene, row.label) for row in box}
    right = np.mean([(row.scene, row.predicted) in labels for row in box])
    print(f"The box alone has {_interval(box)} %. The prediction is a digit of the scene in {right:.1%} of the scenes.")
    if box[0].digits == 2:
        print("\nMaps with more energy in their own digit's box than in the other's:\n")
        print(_table_of(lambda some: f"{np.mean([row.energy > row.energy_other for row in some]):.1%}", rows, layers))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.energy_in_box", description=__doc__)
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes with one digit, and as many with two")
    parser.add_argument("--size", type=int, default=224, help="side of the scenes in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", nargs="+", default=["layer1", "layer2", "layer3", "layer4"])
    parser.add_argument("--output", type=Path, default=Path("output/energy_in_box.csv"))
    options = parser.parse_args(arguments)
    model = load_demo_model()
    rows: list[Row] = []
    for digits in (1, 2):
        scenes = (make_scene([options.seed, n], "held-out", options.size, digits) for n in range(options.scenes))
        progress = tqdm(scenes, f"{digits} digits", options.scenes, disable=not sys.stderr.isatty())
        found = list(measure(model, progress, options.layers))
        _report(found, options.layers)
        rows.extend(found)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    print(f"\n{options.output}: {len(rows)} rows")


if __name__ == "__main__":
    main()
