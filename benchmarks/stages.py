"""Every stage of the method on one photograph: `HolisticCAM.intermediates`, drawn.

Of every scale: the image, and the layer's activations and weights, each position a square; the colours of the weights
are those of their square roots. Then what they become: the fused maps, the two masks and the two results.

  python -m benchmarks.stages --output docs/stages.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.harness.runner import run_main
from holistic_cam_plugin import ClassHolisticCAM, HolisticCAM, Intermediates, pyramid_sizes, resize_image
from holistic_cam_plugin.display import overlay_map
from holistic_cam_plugin.models.build import build_model
from holistic_cam_plugin.models.explainable import Explainable, explainable
from holistic_cam_plugin.models.images import read_image

__all__ = ["draw_stages"]

PHOTOS = Path(__file__).parents[1] / "holistic_cam_plugin" / "demo" / "photos"
Picture = NDArray[np.float32]
CELL = 1.42  # inches
DPI = 124
QUALITY = 77


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the stages into one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photo", type=Path, default=PHOTOS / "tripod.jpg", metavar="FILE", help="the photograph (tripod.jpg)")
    add("--model", default="efficientnet_lite0", metavar="NAME", help="as in holistic-cam (efficientnet_lite0)")
    add("--layer", default="blocks.4", metavar="NAME", help="target layer (blocks.4)")
    add("--class-index", type=int, default=872, metavar="N", help="the explained class (872, tripod)")
    add("--output", type=Path, default=Path("output/stages.jpg"), metavar="FILE", help="a JPEG")
    arguments = parser.parse_args(argv)
    found = explainable(build_model(arguments.model, None).model.eval()).at([arguments.layer])
    figure = draw_stages(found, found.preprocessing(read_image(arguments.photo)), arguments.class_index)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, pil_kwargs={"quality": QUALITY})
    print(arguments.output)


def draw_stages(found: Explainable, image: Tensor, category: int) -> Figure:
    """Draw the stages of the paper's method, and of the class mask.

    Args:
        found: a classifier with one target layer.
        image: `(1, 3, H, W)`, preprocessed.
        category: the index of the class.
    """
    targets = [ClassifierOutputTarget(category)]
    paper = _record(HolisticCAM(found.model, found.target_layers, **found.options), image, targets)
    ours = _record(ClassHolisticCAM(found.model, found.target_layers, **found.options), image, targets)
    columns = len(paper.activations)
    figure = Figure(figsize=(CELL * (columns + 0.5), CELL * 6.75), dpi=DPI)
    margins = {"left": 0.06, "right": 0.995, "top": 0.965, "bottom": 0.005}
    halves = figure.add_gridspec(2, 1, height_ratios=(3, 2.85), hspace=0.12, **margins)
    sizes = pyramid_sizes(*image.shape[-2:])
    images = [found.preprocessing.denormalize(resize_image(image, size)) for size in sizes]
    _draw_scales(figure, halves[0].subgridspec(3, columns, wspace=0.05, hspace=0.05), images, paper)
    rows = halves[1].subgridspec(2, 1, hspace=0.2)
    titles = ("fused, seven scales", "base scale's map $M_0$", "mask $LPW(M_0)$", "Holistic-CAM")
    _draw_mask(figure, rows[0].subgridspec(1, 5, wspace=0.04), images[0], paper, ("the paper's\nmask", *titles))
    titles = ("fused, three scales", "class evidence $E$", "mask $LPW(E)$", "Class Holistic-CAM")
    _draw_mask(figure, rows[1].subgridspec(1, 5, wspace=0.04), images[0], ours, ("the class\nmask", *titles))
    return figure


def _record(cam: HolisticCAM, image: Tensor, targets: Sequence[ClassifierOutputTarget]) -> Intermediates:
    with cam:
        ((record,),) = cam.intermediates(image, targets)
    return record


def _draw_scales(figure: Figure, grid: Any, images: Sequence[Picture], record: Intermediates) -> None:
    """Draw a column for each scale: the image, activations and weights."""
    labels = ("image\n$x_t$", "activations\n$A_t$", "weights\n$W_t$")
    for column, (image, a, w) in enumerate(zip(images, record.activations, record.weights, strict=True)):
        pictures = (image, _reduce(a), np.sqrt(_reduce(w)))
        for row, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            title = f"{min(image.shape[:2])} px" if row == 0 else ""
            _show(axes, picture, "viridis", title, label if column == 0 else "")
            if row == 1:
                note = f"{a.shape[-2]} x {a.shape[-1]}"
                axes.text(0.97, 0.03, note, transform=axes.transAxes, color="white", fontsize=7, ha="right")


def _draw_mask(figure: Figure, cell: Any, image: Picture, record: Intermediates, titles: Sequence[str]) -> None:
    """Draw a row: the fused map, what the mask is made of, the mask, the result, and the result over the image."""
    overlay = overlay_map(image, record.saliency_map, colormap="inferno", opacity=0.55)
    pictures = (record.fused, record.base, record.mask, record.saliency_map, overlay)
    label, *titles = (*titles, "")
    for column, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        _show(figure.add_subplot(cell[column]), picture, "inferno", title, label if column == 0 else "")


def _show(axes: Axes, picture: Any, colormap: str, title: str, label: str) -> None:
    axes.imshow(picture, cmap=colormap, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_frame_on(False)
    axes.set_title(title, fontsize=9, pad=4)
    axes.set_ylabel(label, fontsize=9)


def _reduce(channels: Tensor) -> Picture:
    """The norm over the channels `(C, h, w)`."""
    return np.asarray(torch.linalg.vector_norm(channels, dim=0).cpu().numpy())


if __name__ == "__main__":
    run_main(main)
