"""Files to download: the figure and the arrays. Their names do not contain that of the upload."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from holistic_cam_plugin.app.choices import label_method
from holistic_cam_plugin.app.rendering import Colours, Result, list_rows
from holistic_cam_plugin.display.figure import Block, save_figure

__all__ = ["save_arrays", "save_page_figure"]


def save_arrays(folder: Path, result: Result) -> Path:
    """Write `maps (methods, layers, classes, H, W)`, float32, in [0, 1], linear, and the names along its axes."""
    path = folder / "holistic_cam.npz"
    explanation = result.explanation
    np.savez_compressed(
        path,
        maps=np.stack(explanation.maps),
        methods=[" ".join(label_method(method).split()) for method in explanation.methods[: len(explanation.maps)]],
        layers=explanation.layers,
        targets=explanation.targets,
        classes=[result.classes[target] for target in explanation.targets],
    )
    return path


def save_page_figure(folder: Path, result: Result, colours: Colours) -> Path:
    """Write the figure of the command line in the colours of the page."""
    path = folder / "holistic_cam.png"
    explanation = result.explanation
    columns = [label_method(method) for method in explanation.methods[: len(explanation.maps)]]
    title = ", ".join(result.classes[target] for target in explanation.targets)
    save_figure(path, [Block(title, result.picture, list_rows(result))], columns, **colours._asdict())
    return path
