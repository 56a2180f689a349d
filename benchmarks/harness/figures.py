"""Figures drawn by several experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pytorch_grad_cam.utils.image import show_cam_on_image

from benchmarks.harness.methods import MapsByMethod

__all__ = ["PanelRow", "save_panels", "save_sheet", "save_strip", "save_trends"]

Picture = NDArray[np.float32]
# A label, a picture `(H, W, 3)` in [0, 1], and titles with maps `(H, W)` in [0, 1]; None shows the picture alone.
PanelRow = tuple[str, Picture, Sequence[tuple[str, Picture | None]]]

CELL_INCHES = 1.7
DPI = 110
GAP = 2  # pixels between the cells of a sheet
QUALITY = 85  # of a JPEG sheet


def save_panels(path: Path, rows: Sequence[PanelRow]) -> None:
    """Write labelled rows of maps over their picture as PNG, and create the file's folder."""
    columns = max(len(cells) for *_, cells in rows)
    figure = Figure(figsize=(CELL_INCHES * columns, (CELL_INCHES + 0.2) * len(rows)), dpi=DPI, layout="constrained")
    for axes_row, (label, picture, cells) in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        axes_row[0].set_ylabel(label, fontsize="small")
        for axes, cell in zip(axes_row, [*cells, *[None] * (columns - len(cells))], strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if cell is None:
                axes.set_visible(False)
                continue
            title, cam = cell
            axes.imshow(_overlay(picture, cam))
            axes.set_title(title, fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def save_sheet(path: Path, rows: Sequence[PanelRow], cell: int) -> None:
    """Write many rows as one small picture, JPEG or PNG by the file's name, and create its folder.

    Above consecutive rows with the same label, one line shows the label and the titles from the second on.

    Args:
        cell: side of every cell in pixels.
    """
    columns, line, step = max(len(cells) for *_, cells in rows), cell // 6, cell + GAP
    blocks = [label for number, (label, *_) in enumerate(rows) if number == 0 or label != rows[number - 1][0]]
    sheet = Image.new("RGB", (columns * step - GAP, len(blocks) * line + len(rows) * step - GAP), "white")
    draw, top, current = ImageDraw.Draw(sheet), 0, None
    for label, picture, cells in rows:
        if label != current:
            for column, text in enumerate([label, *(title for title, _ in cells[1:])]):
                centre = column * step + cell / 2, top + line / 2
                draw.text(centre, text, "black", _fit_font(text, cell), anchor="mm")
            top, current = top + line, label
        for column, (_, cam) in enumerate(cells):
            shown = Image.fromarray(_overlay(picture, cam)).resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(shown, (column * step, top))
        top += step
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=QUALITY)


def save_strip(path: Path, picture: Picture, steps: Mapping[str, MapsByMethod], layer: str) -> None:
    """Write the maps of one layer, one row per method and one column per step."""
    methods = [method for where, method in next(iter(steps.values())) if where == layer]
    save_panels(path, [(m, picture, [(step, cams[layer, m]) for step, cams in steps.items()]) for m in methods])


def save_trends(path: Path, rows: Sequence[Mapping[str, str]], values: Sequence[str]) -> None:
    """Plot the mean of each value over the images against the randomised module, one line per method."""
    steps, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("randomized", "method"))
    figure = Figure(figsize=(6 * len(values), 4), dpi=DPI, layout="constrained")
    for axes, value in zip(figure.subplots(1, len(values), squeeze=False)[0], values, strict=True):
        for method in methods:
            own = [row for row in rows if row["method"] == method and row[value]]
            means = [_compute_mean([float(row[value]) for row in own if row["randomized"] == step]) for step in steps]
            axes.plot(steps, means, marker=".", label=method)
        axes.set_ylabel(value)
        axes.tick_params(axis="x", rotation=60)
        axes.axhline(0, color="grey", linewidth=0.5)
    axes.legend(fontsize="x-small")
    figure.savefig(path)


def _overlay(picture: Picture, cam: Picture | None) -> NDArray[np.uint8]:
    """Overlay the map as pytorch-grad-cam does; None: the picture alone."""
    shown = np.uint8(255 * picture) if cam is None else show_cam_on_image(picture, cam, use_rgb=True)
    return np.asarray(shown, dtype=np.uint8)


def _fit_font(text: str, width: int) -> ImageFont.FreeTypeFont:
    """Choose Matplotlib's default font in a size at which the text fits, at most an eighth of the width."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), width // 8)
    return font.font_variant(size=int(font.size * min(1, width / max(1, font.getlength(text)))))


def _compute_mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
