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
Picture = NDArray[np.floating[Any]]
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
    add("--output", type=Path, default=Path("output/stages.jpg"), metavar="FILE", help="JPEG or PNG")
    arguments = parser.parse_args(argv)
    found = explainable(build_model(arguments.model, None).model.eval()).at([arguments.layer])
    figure = draw_stages(found, found.preprocessing(read_image(arguments.photo)), arguments.class_index)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    options = {"pil_kwargs": {"quality": QUALITY}} if arguments.output.suffix.lower() in (".jpg", ".jpeg") else {}
    figure.savefig(arguments.output, **options)
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
    sizes = pyramid_sizes(*image.shape[-2:])
    columns = len(sizes)
    figure = Figure(figsize=(CELL * (columns + 0.5), CELL * 6.75), dpi=DPI)
    grid = figure.add_gridspec(
        2, 1, height_ratios=(3, 2.85), left=0.06, right=0.995, top=0.965, bottom=0.005, hspace=0.12
    )
    scales = grid[0].subgridspec(3, columns, wspace=0.05, hspace=0.05)
    for column, (size, a, w) in enumerate(zip(sizes, paper.activations, paper.weights, strict=True)):
        enlarged = found.preprocessing.denormalize(resize_image(image, size))
        rows: list[tuple[str, Picture, str | None]] = [
            ("image\n$x_t$", enlarged, None),
            ("activations\n$A_t$", _reduce(a), "viridis"),
            ("weights\n$W_t$", np.sqrt(_reduce(w)), "viridis"),
        ]
        for row, (label, picture, colormap) in enumerate(rows):
            axes = figure.add_subplot(scales[row, column])
            _show(axes, picture, colormap, label if column == 0 else "")
            if row == 0:
                axes.set_title(f"{size[0]} px", fontsize=9, pad=4)
            if row == 1:
                axes.text(0.97, 0.03, f"{a.shape[-2]} x {a.shape[-1]}", transform=axes.transAxes, **_NOTE)
    _draw_masks(figure, grid[1], found.preprocessing.denormalize(image), paper, ours)
    return figure


_NOTE: dict[str, Any] = {"color": "white", "fontsize": 7, "ha": "right", "va": "bottom"}


def _record(cam: HolisticCAM, image: Tensor, targets: Sequence[ClassifierOutputTarget]) -> Intermediates:
    with cam:
        ((record,),) = cam.intermediates(image, targets)
    return record


def _draw_masks(figure: Figure, cell: Any, picture: Picture, paper: Intermediates, ours: Intermediates) -> None:
    """Draw a row for each mask: fused map, what the mask is made of, mask, map, map over the picture."""
    titles = (
        ("fused, seven scales", "base scale's map $M_0$", "mask $LPW(M_0)$", "Holistic-CAM", ""),
        ("fused, three scales", "class evidence $E$", "mask $LPW(E)$", "Class Holistic-CAM", ""),
    )
    grid = cell.subgridspec(2, 5, wspace=0.04, hspace=0.2)
    for row, (record, names) in enumerate(zip((paper, ours), titles, strict=True)):
        overlay = overlay_map(picture, record.saliency_map, colormap="inferno", opacity=0.55)
        pictures = (record.fused, record.base, record.mask, record.saliency_map, overlay)
        for column, (name, shown) in enumerate(zip(names, pictures, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            label = ("the paper's\nmask", "the class\nmask")[row] if column == 0 else ""
            _show(axes, shown, None if shown.ndim == 3 else "inferno", label)
            axes.set_title(name, fontsize=9, pad=4)


def _show(axes: Axes, picture: Picture, colormap: str | None, label: str) -> None:
    axes.imshow(picture, cmap=colormap, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_ylabel(label, fontsize=9)


def _reduce(channels: Tensor) -> Picture:
    """The norm over the channels `(C, h, w)`."""
    return torch.linalg.vector_norm(channels, dim=0).cpu().numpy()


if __name__ == "__main__":
    run_main(main)
