"""The figure: one row a layer, one column a method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from holistic_cam_plugin.display.maps import SCALES, coverage, overlaid, percent
from holistic_cam_plugin.display.text import drawable

__all__ = ["MOST_ROWS", "figure_rows", "save_figure"]

MOST_ROWS = 60  # Matplotlib lays out hundreds of them in hours
CELL_INCHES = 2.0
DPI = 130
LARGEST_SIDE = 2**15  # pixels; Matplotlib refuses twice that, and a figure is held in memory whole
TITLE_LETTERS = 9  # an inch, at most
TITLE_LINE = 0.2  # inches


def figure_rows(
    layers: Sequence[str], classes: Sequence[str], maps: Sequence[Sequence[NDArray[np.float32]]]
) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """For every class every layer: its label, and its maps `(H, W)`, one a column.

    Args:
        layers, classes: their names.
        maps: for every column, for every layer, `(classes, H, W)`.
    """
    return [
        (layer if len(classes) == 1 else f"{layer}\n{name}", [of_column[n][m] for of_column in maps])
        for m, name in enumerate(classes)
        for n, layer in enumerate(layers)
    ]


def save_figure(
    file: Path | BinaryIO,
    picture: NDArray[np.float32],
    rows: Sequence[tuple[str, Sequence[NDArray[np.float32]]]],
    columns: Sequence[str],
    title: str,
    *,
    scale: str = "linear",
    colormap: str = "jet",
    opacity: float = 0.5,
) -> None:
    """Write the figure as PNG.

    Args:
        file: to write, or to write to.
        picture: the image, `(H, W, 3)`, float32, in [0, 1]; it fills the first column.
        rows: a label, of one line or more, and the maps `(H, W)` in [0, 1], one a column.
        columns: names of the methods.
        title: above all, in as many lines as it takes.
        scale, colormap, opacity: of the maps, as for `overlaid`; the figure names the first two.
    """
    height = CELL_INCHES * picture.shape[0] / picture.shape[1]
    width = CELL_INCHES * (len(columns) + 1) + 0.3
    lines = textwrap.wrap(drawable(title), int(width * TITLE_LETTERS))
    size = (width, height * len(rows) + 0.4 + TITLE_LINE * len(lines))
    figure = Figure(figsize=size, dpi=min(DPI, LARGEST_SIDE / max(size)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    figure.suptitle("\n".join(lines), parse_math=False)
    for axes, name in zip(grid[0], ["image", *columns], strict=True):
        axes.set_title(name, fontsize="medium")
    for cells, (label, maps) in zip(grid, rows, strict=True):
        cells[0].set_ylabel(drawable(label), fontsize="medium", parse_math=False)
        pictures = [picture, *(overlaid(picture, saliency_map, scale, colormap, opacity) for saliency_map in maps)]
        for axes, shown in zip(cells, pictures, strict=True):
            axes.imshow(shown)
            axes.set_xticks([])
            axes.set_yticks([])
        for axes, saliency_map in zip(cells[1:], maps, strict=True):
            axes.set_xlabel(percent(coverage(saliency_map)), fontsize="small", labelpad=2)
    legend = f"%: share of the picture at a fifth of the map's peak or above\ncolours: {SCALES[scale]}, {colormap}"
    figure.supxlabel(legend, fontsize="small")
    figure.savefig(file)
