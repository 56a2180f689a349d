"""Figures of maps: one row per layer, one column per method."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from holistic_cam_plugin.display.maps import coverage, format_percent, overlay_map
from holistic_cam_plugin.display.text import escape_missing_glyphs
from holistic_cam_plugin.names import COLORMAP, SCALES

__all__ = ["MAX_ROWS", "Block", "Row", "build_rows", "save_figure"]

MAX_ROWS = 60  # Matplotlib needs hours to lay out hundreds
MAX_COLUMNS = 16  # of blocks beside one another; more are below one another
CELL_INCHES = 2.0
DPI = 130
MAX_SIDE = 2**15  # pixels; Matplotlib's limit is twice that
TITLE_LETTERS = 9  # per inch, at most
TITLE_LINE = 0.2  # inches
LABEL_LETTERS = 22  # of a class beside a row
FOOT_LETTERS = 16  # per inch, at most
FOOT_LINE = 0.14  # inches

Row = tuple[str, Sequence[NDArray[np.float32]]]  # the label and a map per column


class Block(NamedTuple):
    """The maps of one picture by one model.

    Attributes:
        title: wrapped to the figure's width.
        picture: the image, `(H, W, 3)`, float32, in [0, 1], for the first column.
        rows: the label of each row and its maps `(H, W)` in [0, 1], one per column.
    """

    title: str
    picture: NDArray[np.float32]
    rows: Sequence[Row]


def build_rows(
    layers: Sequence[str], classes: Sequence[str], maps: Sequence[NDArray[np.float32]]
) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """Build the rows of `save_figure`: one per class and layer.

    Args:
        layers, classes: names.
        maps: `(layers, classes, H, W)` per column.
    """
    return [
        (layer if len(classes) == 1 else f"{layer}\n{_shorten(name)}", [column[n, m] for column in maps])
        for m, name in enumerate(classes)
        for n, layer in enumerate(layers)
    ]


def save_figure(
    file: Path | BinaryIO,
    blocks: Sequence[Block],
    columns: Sequence[str],
    *,
    scale: str = "linear",
    colormap: str = COLORMAP,
    opacity: float = 0.5,
    file_format: str = "png",
    dpi: int | None = None,
    foot: str = "",
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write a figure of blocks beside one another, or below one another if they would have more than 16 columns.

    Args:
        file: a path or an open file.
        blocks: at least one.
        columns: names of the methods.
        scale, colormap, opacity: as in `overlay_map`; a legend names the first two.
        file_format: `"png"`, `"pdf"` or `"svg"`.
        dpi: pixels per inch; None: 130. A figure of more than 32,768 pixels on a side is made with fewer.
        foot: small text below the figure.
        metadata: of the file, by names that Matplotlib takes for the format.

    Returns:
        The pixels per inch of the figure.
    """
    width = CELL_INCHES * (len(columns) + 1) + 0.3  # of a block
    across = len(blocks) if len(blocks) * (len(columns) + 1) <= MAX_COLUMNS else 1
    titles = [_wrap(block.title, width * TITLE_LETTERS) for block in blocks]
    heights = [
        CELL_INCHES * block.picture.shape[0] / block.picture.shape[1] * len(block.rows) + TITLE_LINE * len(title)
        for block, title in zip(blocks, titles, strict=True)
    ]
    legend = f"%: share of the picture at a fifth of the map's peak or above; colours: {SCALES[scale]}, {colormap}"
    notes = [line for text in (legend, foot) for line in _wrap(text, across * width * FOOT_LETTERS)]
    bottom = FOOT_LINE * (len(notes) + 1)
    top = max(heights) if across > 1 else sum(heights)
    size = (across * width, top + 0.4 + bottom)
    figure = Figure(figsize=size, dpi=min(dpi or DPI, MAX_SIDE / max(size)), layout="constrained")
    upper, last = figure.subfigures(2, 1, squeeze=False, height_ratios=[top, bottom])[:, 0]
    parts = _split_beside(upper, heights) if across > 1 else _split_below(upper, heights)
    for part, block, title in zip(parts, blocks, titles, strict=True):
        part.suptitle("\n".join(title), parse_math=False)
        _draw_block(part, block, columns, scale, colormap, opacity)
    last.text(0.5, 0.5, "\n".join(notes), ha="center", va="center", fontsize="x-small", parse_math=False)
    figure.savefig(file, format=file_format, metadata=dict(metadata or {}))
    return float(figure.dpi)


def _shorten(name: str) -> str:
    """Keep the first of a class's names, as much of it as fits beside a row; the title has all of it."""
    first = name.split(",")[0]
    return first if len(first) <= LABEL_LETTERS else f"{first[: LABEL_LETTERS - 3]}..."


def _split_beside(figure: SubFigure, heights: Sequence[float]) -> list[SubFigure]:
    """Split into parts of the same width; lower ones end above the others."""
    parts = figure.subfigures(1, len(heights), squeeze=False)[0]
    ends = [max(heights) - height for height in heights]
    return [
        part.subfigures(2, 1, squeeze=False, height_ratios=[height, end])[0, 0] if end else part
        for part, height, end in zip(parts, heights, ends, strict=True)
    ]


def _split_below(figure: SubFigure, heights: Sequence[float]) -> list[SubFigure]:
    return list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])


def _wrap(text: str, letters: float) -> list[str]:
    return textwrap.wrap(escape_missing_glyphs(text), int(letters))


def _draw_block(
    part: SubFigure, block: Block, columns: Sequence[str], scale: str, colormap: str, opacity: float
) -> None:
    grid = part.subplots(len(block.rows), len(columns) + 1, squeeze=False)
    for axes, name in zip(grid[0], ["image", *columns], strict=True):
        axes.set_title(name, fontsize="medium")
    for cells, (label, maps) in zip(grid, block.rows, strict=True):
        cells[0].set_ylabel(escape_missing_glyphs(label), fontsize="medium", parse_math=False)
        overlays = (overlay_map(block.picture, saliency_map, scale, colormap, opacity) for saliency_map in maps)
        for axes, shown in zip(cells, [block.picture, *overlays], strict=True):
            axes.imshow(shown)
            axes.set_xticks([])
            axes.set_yticks([])
        for axes, saliency_map in zip(cells[1:], maps, strict=True):
            axes.set_xlabel(format_percent(coverage(saliency_map)), fontsize="small", labelpad=2)
