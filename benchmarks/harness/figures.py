"""Figures that several experiments draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_grad_cam.utils.image import show_cam_on_image

from benchmarks.harness.methods import MapsByMethod

__all__ = ["save_panels", "save_strip", "save_trends"]

Picture = NDArray[np.float32]

CELL_INCHES = 1.7
DPI = 110


def save_panels(path: Path, rows: Sequence[tuple[str, Picture, Sequence[tuple[str, Picture | None]]]]) -> None:
    """Write labelled rows of maps over their picture as PNG.

    Args:
        path: file to write; its folder is made.
        rows: a label, the picture `(H, W, 3)` in [0, 1], and titles with maps `(H, W)` in [0, 1]; None shows the
            picture itself.
    """
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
            axes.imshow(picture if cam is None else show_cam_on_image(picture, cam, use_rgb=True))
            axes.set_title(title, fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def save_strip(path: Path, picture: Picture, steps: Mapping[str, MapsByMethod], layer: str) -> None:
    """One row a method, one column a step: the maps of one layer."""
    methods = [method for where, method in next(iter(steps.values())) if where == layer]
    save_panels(path, [(m, picture, [(step, cams[layer, m]) for step, cams in steps.items()]) for m in methods])


def save_trends(path: Path, rows: Sequence[Mapping[str, str]], values: Sequence[str]) -> None:
    """One plot a value: its mean over the images against the randomised module, one line a method."""
    steps, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("randomized", "method"))
    figure = Figure(figsize=(6 * len(values), 4), dpi=DPI, layout="constrained")
    for axes, value in zip(figure.subplots(1, len(values), squeeze=False)[0], values, strict=True):
        for method in methods:
            own = [row for row in rows if row["method"] == method and row[value]]
            means = [_mean([float(row[value]) for row in own if row["randomized"] == step]) for step in steps]
            axes.plot(steps, means, marker=".", label=method)
        axes.set_ylabel(value)
        axes.tick_params(axis="x", rotation=60)
        axes.axhline(0, color="grey", linewidth=0.5)
    axes.legend(fontsize="x-small")
    figure.savefig(path)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
