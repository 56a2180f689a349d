"""Event handlers of the page.

Gradio keeps each browser tab's picture and maps; the classifier is shared.
"""

from __future__ import annotations

import html
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from holistic_cam_plugin.app.choices import check_choice, name_classes, select_methods
from holistic_cam_plugin.app.downloads import save_arrays, save_page_figure
from holistic_cam_plugin.app.examples import load_examples
from holistic_cam_plugin.app.rendering import Colours, Result, locate_map, name_maps, render_map, render_table
from holistic_cam_plugin.app.snippet import Source, write_snippet
from holistic_cam_plugin.errors import Stopped, UsageError
from holistic_cam_plugin.explain import Explanation, Prediction, Request, explain, predict
from holistic_cam_plugin.models.images import preprocess_image, read_image

__all__ = ["BEST", "Handlers"]

BEST = 5

_progress = gr.Progress()


class Seen(NamedTuple):
    """A picture as the model sees it, `(H, W, 3)`, RGB, float32, in [0, 1], and the model's prediction."""

    picture: NDArray[np.float32]
    prediction: Prediction


class Handlers:
    """The functions that the page calls.

    Args:
        source: the classifier to load.
        folder: for the files to download.

    Attributes:
        classes: unique names of the classes.
        layers: the layers that can be explained.
        stages: names of the default layers.
        examples: pictures to begin with.
        closing: set it to stop all computations.

    Raises:
        UsageError: the classifier cannot be loaded, or has no layer to explain.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.classifier = source.load()
        self.classes = name_classes(self.classifier.classes)
        self.layers = self.classifier.explainable.maps_called_once
        self.stages = self.classifier.default_layers
        self.examples = load_examples(source.model)
        self.closing = threading.Event()
        self._source = source._replace(device=str(self.classifier.device))
        self._folder = folder
        self._model = threading.Lock()  # the last pass for a closed tab may still run
        self._stops: dict[str, threading.Event] = {}  # of the tabs that compute, or wait for the model

    def look(self, path: str) -> tuple[Any, ...]:
        """Handle an upload; returns the state, the picture, the best classes, and the best one as the choice."""
        with _show_errors():
            try:
                image = read_image(Path(path))
            except UsageError as error:  # the path is the server's
                raise UsageError(str(error).replace(path, "the picture")) from error
        return self._look_at(image)

    def look_at_example(self, choice: gr.SelectData) -> tuple[Any, ...]:
        """Handle a click on an example, as `look`."""
        return self._look_at(self.examples[int(choice.index)])

    def first_example(self) -> tuple[Any, ...]:
        """Show the first example, as `look`."""
        return self._look_at(self.examples[0])

    def _look_at(self, image: Image.Image) -> tuple[Any, ...]:
        with self._model, _show_errors():
            prediction = predict(self.classifier, preprocess_image(image, self.classifier))
            seen = Seen(self.classifier.preprocessing.denormalize(prediction.images), prediction)
        probabilities = prediction.probabilities[0]
        best = np.argsort(-probabilities)[:BEST]
        picture = Image.fromarray((255 * seen.picture).astype(np.uint8))
        return seen, picture, {self.classes[n]: float(probabilities[n]) for n in best}, [int(best[0])]

    def add_class(self, targets: Sequence[int], choice: gr.SelectData) -> list[int]:
        """Add one of the best classes to the choice."""
        target = self.classes.index(choice.value)
        return [*targets, *[target] * (target not in targets)]

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """Set the buttons and the status while the tab waits for the model."""
        self._stops[_identify_tab(request)] = threading.Event()
        return gr.update(interactive=False), gr.update(interactive=True), "Waiting for the model"

    def stop(self, request: gr.Request) -> str:
        """Stop the tab's computation at the next pass through the model; returns the status."""
        if stop := self._stops.get(_identify_tab(request)):
            stop.set()
        return "Stopping"

    def leave(self, request: gr.Request) -> None:
        """Stop the computation of a tab that is closed."""
        if stop := self._stops.pop(_identify_tab(request), None):
            stop.set()

    def explain(
        self,
        seen: Seen | None,
        targets: Sequence[int],
        layers: Sequence[str],
        methods: Sequence[str],
        weightings: Sequence[str],
        num_scales: int,
        sizes: str,
        fsd: bool,
        scale: str,
        colormap: str,
        opacity: float,
        tab: gr.Request,
        progress: gr.Progress = _progress,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the result, its table and the status after each method."""
        with _show_errors():
            if seen is None:
                raise UsageError("choose a picture first")
            columns = select_methods(methods, weightings, num_scales, sizes, fsd, self._source.amp)
            check_choice(targets, layers, columns)
            request = Request(self.classifier, self.classifier.at(layers), columns)
            stopped = self._find_stop(tab)
            steps = explain(
                request, seen.prediction, [targets],
                lambda column, loop: progress.tqdm(
                    loop, desc=f"{columns.index(column) + 1} of {len(columns)}: {column.name}"
                ),
            )  # fmt: skip
            start, done, status = time.perf_counter(), 0, ""
            try:
                while (explanation := self._compute_next(steps, stopped)) is not None:
                    done, result = done + 1, Result(seen.picture, explanation)
                    if done == len(columns):
                        number = done * len(targets) * len(layers)
                        status = f"{number} maps in {time.perf_counter() - start:.1f} s"
                    yield result, render_table(result, self.classes, Colours(scale, colormap, opacity)), status
            except Stopped:
                yield gr.skip(), gr.skip(), f"Stopped after {done} of {len(columns)} columns"

    def end(
        self, result: Result | None, scale: str, colormap: str, opacity: float, request: gr.Request
    ) -> tuple[Any, ...]:
        """Reset the buttons, and update the choices of maps, the comparison and the script."""
        self._stops.pop(_identify_tab(request), None)
        buttons = gr.update(interactive=True), gr.update(interactive=False)
        if result is None:
            return *buttons, *[gr.skip()] * 5
        names = [(name, index) for index, name in enumerate(name_maps(result.explanation, self.classes))]
        last, methods = len(names) - 1, len(result.explanation.maps)
        first = 0 if methods == 1 else last // methods  # the last map of the first method
        left, right = (gr.update(choices=names, value=index) for index in (first, last))
        of_maps = gr.update(choices=names[1:], value=last)
        pair = self.compare(result, first, last, scale, colormap, opacity)
        return *buttons, left, right, pair, of_maps, self.python(result, last)

    def colour(
        self, result: Result | None, left: int, right: int, scale: str, colormap: str, opacity: float
    ) -> tuple[Any, ...]:
        """Draw the table and the comparison in other colours."""
        if result is None:
            return gr.skip(), gr.skip()
        table = render_table(result, self.classes, Colours(scale, colormap, opacity))
        return table, self.compare(result, left, right, scale, colormap, opacity)

    def compare(self, result: Result | None, left: int, right: int, scale: str, colormap: str, opacity: float) -> Any:
        """Draw two maps, or the picture and a map."""
        if result is None:
            return gr.skip()
        return tuple(render_map(result, index, Colours(scale, colormap, opacity)) for index in (left, right))

    def python(self, result: Result | None, index: int) -> Any:
        """Write the script that computes one of the maps."""
        if result is None:
            return gr.skip()
        explanation = result.explanation
        method, layer, target = locate_map(explanation, index)
        number = explanation.targets[target]
        return write_snippet(
            self._source, explanation.methods[method], explanation.layers[layer], number, self.classes[number]
        )

    def files(self, result: Result | None, scale: str, colormap: str, opacity: float) -> tuple[Any, ...]:
        """Write the figure and the arrays, ready for the download."""
        if result is None:
            return gr.skip(), gr.skip()
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        figure = save_page_figure(folder, result, self.classes, Colours(scale, colormap, opacity))
        arrays = save_arrays(folder, result.explanation, self.classes)
        return tuple(gr.update(value=str(path), interactive=True) for path in (figure, arrays))

    def _compute_next(self, steps: Iterator[list[Explanation]], stopped: Callable[[], bool]) -> Explanation | None:
        """The picture's explanation after one more method, or None after the last one."""
        with self._model, _check_passes(self.classifier.model, stopped):
            return next(steps, [None])[0]

    def _find_stop(self, request: gr.Request) -> Callable[[], bool]:
        stop = self._stops.get(_identify_tab(request), threading.Event())
        return lambda: stop.is_set() or self.closing.is_set()


@contextmanager
def _check_passes(model: nn.Module, stopped: Callable[[], bool]) -> Iterator[None]:
    """Raise Stopped at the next pass through the model once `stopped` returns True."""

    def check(*_: object) -> None:
        if stopped():
            raise Stopped

    handle = model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _show_errors() -> Iterator[None]:
    """Show a UsageError on the page, in the line that the command line would print."""
    try:
        yield
    except UsageError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


def _identify_tab(request: gr.Request) -> str:
    return str(request.session_hash)
