"""What is downloaded: the figure, and the arrays. Their names are ours, never the upload's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from holistic_cam_plugin.app.explaining import Explained
from holistic_cam_plugin.app.rendering import Colours, rows
from holistic_cam_plugin.display.figure import save_figure

__all__ = ["save_arrays", "save_page_figure"]


def save_arrays(folder: Path, explained: Explained, classes: list[str]) -> Path:
    """`maps (methods, layers, classes, H, W)`, float32, in [0, 1], linear, with the names along their axes."""
    path = folder / "holistic_cam.npz"
    choice = explained.choice
    np.savez_compressed(
        path,
        maps=np.stack([np.stack(of_column) for of_column in explained.maps]).astype(np.float32),
        methods=[" ".join(column.label.split()) for column in choice.columns[: len(explained.maps)]],
        layers=choice.layers,
        targets=choice.targets,
        classes=[classes[target] for target in choice.targets],
    )
    return path


def save_page_figure(folder: Path, explained: Explained, classes: list[str], colours: Colours) -> Path:
    """The figure of the command line, in the colours of the page."""
    path = folder / "holistic_cam.png"
    columns = [column.label for column in explained.choice.columns[: len(explained.maps)]]
    title = ", ".join(classes[target] for target in explained.choice.targets)
    save_figure(path, explained.picture, rows(explained, classes), columns, title, **colours._asdict())
    return path
