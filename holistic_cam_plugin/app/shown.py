"""What the page shows of a run."""

from __future__ import annotations

import html
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from holistic_cam_plugin.app.downloads import save_arrays, save_page_figure
from holistic_cam_plugin.app.rendering import Colours, Result, locate_map, name_maps, render_pair, render_table
from holistic_cam_plugin.app.snippet import Source, write_snippet

__all__ = ["EMPTY", "NO_MAPS", "Shown", "complain", "show_figure", "show_result", "write_python"]

EMPTY = '<p class="hint">Choose a picture and what to explain of it, then press <b>Explain</b>.</p>'


class Shown(NamedTuple):
    """In the order of the outputs of `Handlers.explain`; what is not given stays as it is."""

    result: Any = gr.skip()
    table: Any = gr.skip()
    status: Any = gr.skip()
    left: Any = gr.skip()
    right: Any = gr.skip()
    pair: Any = gr.skip()
    which: Any = gr.skip()
    code: Any = gr.skip()
    figure: Any = gr.skip()
    arrays: Any = gr.skip()
    start: Any = gr.skip()
    stop: Any = gr.skip()


_NO_CHOICE = gr.update(choices=[], value=None)
_NO_FILE = gr.update(value=None, interactive=False)

NO_MAPS = Shown(None, EMPTY, "", _NO_CHOICE, _NO_CHOICE, "", _NO_CHOICE, "", _NO_FILE, _NO_FILE)


def show_result(result: Result, colours: Colours, source: Source, folder: Path) -> Shown:
    """Show all of a result: the table, the comparison of two maps, the script of one, and the files."""
    names = [(name, index) for index, name in enumerate(name_maps(result))]
    last, methods = len(names) - 1, len(result.explanation.maps)
    first = 0 if methods == 1 else last // methods  # the last map of the first method
    arrays = save_arrays(Path(tempfile.mkdtemp(dir=folder)), result)
    return Shown(
        result=result,
        table=render_table(result, colours),
        left=gr.update(choices=names, value=first),
        right=gr.update(choices=names, value=last),
        pair=render_pair(result, first, last, colours),
        which=gr.update(choices=names[1:], value=last),
        code=write_python(result, last, source),
        figure=show_figure(result, colours, folder),
        arrays=gr.update(value=str(arrays), interactive=True),
    )


def show_figure(result: Result, colours: Colours, folder: Path) -> Any:
    """Write the figure, ready for the download."""
    path = save_page_figure(Path(tempfile.mkdtemp(dir=folder)), result, colours)
    return gr.update(value=str(path), interactive=True)


def write_python(result: Result, index: int, source: Source) -> str:
    """Write the script that computes one of the maps."""
    explanation = result.explanation
    method, layer, target = locate_map(explanation, index)
    number = explanation.targets[target]
    if source.text:
        source = source._replace(text=result.classes)
    return write_snippet(source, explanation.methods[method], explanation.layers[layer], number, result.classes[number])


def complain(error: Exception) -> str:
    """Show an error beside the page for some seconds, and return it for the status, where it stays."""
    message = html.escape(str(error))
    gr.Warning(message, title="Error")
    return f"Error: {message}"
