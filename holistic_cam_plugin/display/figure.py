"""Figures of maps: one row per layer, one column per method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from holistic_cam_plugin.display.maps import SCALES, coverage, format_percent, overlay_map
from holistic_cam_plugin.display.text import escape_missing_glyphs

__all__ = ["MAX_ROWS", "build_rows", "save_figure"]

MAX_ROWS = 60  # Matplotlib needs hours to lay out hundreds
CELL_INCHES = 2.0
DPI = 130
MAX_SIDE = 2**15  # pixels; Matplotlib's limit is twice that
TITLE_LETTERS = 9  # per inch, at most
TITLE_LINE = 0.2  # inches


def build_rows(
    layers: Sequence[str], classes: Sequence[str], maps: Sequence[NDArray[np.float32]]
) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """Build the rows of `save_figure`: one per class and layer.

    Args:
        layers, classes: names.
        maps: `(layers, classes, H, W)` per column.
    """
    return [
        (layer if len(classes) == 1 else f"{layer}\n{name}", [column[n, m] for column in maps])
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
    """Write a figure as PNG.

    Args:
        file: a path or an open file.
        picture: the image, `(H, W, 3)`, float32, in [0, 1], for the first column.
        rows: the label of each row and its maps `(H, W)` in [0, 1], one per column.
        columns: names of the methods.
        title: wrapped to the figure's width.
        scale, colormap, opacity: as in `overlay_map`; a legend names the first two.
    """
    height = CELL_INCHES * picture.shape[0] / picture.shape[1]
    width = CELL_INCHES * (len(columns) + 1) + 0.3
    lines = textwrap.wrap(escape_missing_glyphs(title), int(width * TITLE_LETTERS))
    size = (width, height * len(rows) + 0.4 + TITLE_LINE * len(lines))
    figure = Figure(figsize=size, dpi=min(DPI, MAX_SIDE / max(size)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    figure.suptitle("\n".join(lines), parse_math=False)
    for axes, name in zip(grid[0], ["image", *columns], strict=True):
        axes.set_title(name, fontsize="medium")
    for cells, (label, maps) in zip(grid, rows, strict=True):
        cells[0].set_ylabel(escape_missing_glyphs(label), fontsize="medium", parse_math=False)
        pictures = [picture, *(overlay_map(picture, saliency_map, scale, colormap, opacity) for saliency_map in maps)]
        for axes, shown in zip(cells, pictures, strict=True):
            axes.imshow(shown)
            axes.set_xticks([])
            axes.set_yticks([])
        for axes, saliency_map in zip(cells[1:], maps, strict=True):
            axes.set_xlabel(format_percent(coverage(saliency_map)), fontsize="small", labelpad=2)
    legend = f"%: share of the picture at a fifth of the map's peak or above\ncolours: {SCALES[scale]}, {colormap}"
    figure.supxlabel(legend, fontsize="small")
    figure.savefig(file)
