"""What happens when somebody does something on the page.

A person's pictures and maps are values that Gradio keeps for each browser tab; the classifier is shared by all.
"""

from __future__ import annotations

import html
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from holistic_cam_plugin.app.choices import chosen, class_names, columns
from holistic_cam_plugin.app.examples import photographs, scenes
from holistic_cam_plugin.app.explaining import Explained, Seen, Stopped, explain, look
from holistic_cam_plugin.app.files import save_arrays, save_page_figure
from holistic_cam_plugin.app.rendering import Colours, grid, map_names, one_map, place
from holistic_cam_plugin.app.snippet import Source, snippet
from holistic_cam_plugin.classifiers.images import read_image
from holistic_cam_plugin.errors import UsageError

__all__ = ["Handlers"]

BEST = 5

_progress = gr.Progress()


class Handlers:
    """The page's functions.

    Args:
        source: the classifier; it is loaded here.
        folder: for the files that are downloaded.

    Attributes:
        classes: a name of its own for each class.
        layers: those that give maps.
        stages: the default ones among them.
        examples: pictures to begin with.
        closing: set it to stop whatever is being computed.

    Raises:
        UsageError: the classifier can't be loaded or has no layer to explain.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.classifier = source.load()
        self.classes = class_names(self.classifier.classes)
        self.layers = self.classifier.found.single
        self.stages = self.classifier.stages
        self.examples = scenes() if source.model is None else photographs()
        self.closing = threading.Event()
        self._source = source._replace(device=str(self.classifier.device))
        self._folder = folder
        self._model = threading.Lock()  # a tab that is closed leaves its last pass behind
        self._stops: dict[str, threading.Event] = {}  # of the tabs that compute or wait for their turn

    def look(self, path: str) -> tuple[Any, ...]:
        """An upload: what is seen, its picture, the best classes, and the best one as the choice."""
        with _told():
            try:
                image = read_image(Path(path))
            except UsageError as error:  # the person knows neither the path nor the name on this machine
                raise UsageError(str(error).replace(path, "the picture")) from error
        return self._looked(image)

    def look_at_example(self, choice: gr.SelectData) -> tuple[Any, ...]:
        """The same for an example."""
        return self._looked(self.examples[int(choice.index)])

    def first_example(self) -> tuple[Any, ...]:
        """The same for the first one."""
        return self._looked(self.examples[0])

    def _looked(self, image: Image.Image) -> tuple[Any, ...]:
        with self._model, _told():
            seen = look(image, self.classifier)
        best = np.argsort(-seen.probabilities)[:BEST]
        picture = Image.fromarray((255 * seen.picture).astype(np.uint8))
        return seen, picture, {self.classes[n]: float(seen.probabilities[n]) for n in best}, [int(best[0])]

    def add_class(self, targets: Sequence[int], choice: gr.SelectData) -> list[int]:
        """One of the best classes, clicked: it joins the choice."""
        target = self.classes.index(choice.value)
        return [*targets, *[target] * (target not in targets)]

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """Before the turn comes: the buttons, and a word."""
        self._stops[_tab(request)] = threading.Event()
        return gr.update(interactive=False), gr.update(interactive=True), "Waiting for the model"

    def stop(self, request: gr.Request) -> str:
        """Asked for by the person."""
        if stop := self._stops.get(_tab(request)):
            stop.set()
        return "Stopping"

    def leave(self, request: gr.Request) -> None:
        """The tab is closed."""
        if stop := self._stops.pop(_tab(request), None):
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
        request: gr.Request,
        progress: gr.Progress = _progress,
    ) -> Iterator[tuple[Any, ...]]:
        """The maps, their table and a word, after each method."""
        with _told():
            if seen is None:
                raise UsageError("choose a picture first")
            choice = chosen(targets, layers, columns(methods, weightings, num_scales, sizes, fsd, self._source.amp))
            colours = Colours(scale, colormap, opacity)
            start, result = time.perf_counter(), None
            steps = explain(
                self.classifier, seen, choice, lambda what, some: progress.tqdm(some, desc=what), self._stopped(request)
            )
            try:
                while (step := self._next(steps)) is not None:
                    result = step
                    ready = len(result.maps) == len(choice.columns)
                    word = f"{choice.number} maps in {time.perf_counter() - start:.1f} s" if ready else ""
                    yield result, grid(result, self.classes, colours), word
            except Stopped:
                done = 0 if result is None else len(result.maps)
                yield gr.skip(), gr.skip(), f"Stopped after {done} of {len(choice.columns)} columns"

    def end(
        self, explained: Explained | None, scale: str, colormap: str, opacity: float, request: gr.Request
    ) -> tuple[Any, ...]:
        """Afterwards: the buttons, and what is made of the maps: two to compare, and the Python of one."""
        self._stops.pop(_tab(request), None)
        buttons = gr.update(interactive=True), gr.update(interactive=False)
        if explained is None:
            return *buttons, *[gr.skip()] * 5
        names = [(name, index) for index, name in enumerate(map_names(explained, self.classes))]
        last = len(names) - 1
        per_column = last // len(explained.maps)
        first = 0 if len(explained.maps) == 1 else per_column
        left, right = (gr.update(choices=names, value=index) for index in (first, last))
        of_maps = gr.update(choices=names[1:], value=last)
        pair = self.compare(explained, first, last, scale, colormap, opacity)
        return *buttons, left, right, pair, of_maps, self.python(explained, last)

    def colour(
        self, explained: Explained | None, left: int, right: int, scale: str, colormap: str, opacity: float
    ) -> tuple[Any, ...]:
        """The same maps in other colours: the table, and the two that are compared."""
        if explained is None:
            return gr.skip(), gr.skip()
        table = grid(explained, self.classes, Colours(scale, colormap, opacity))
        return table, self.compare(explained, left, right, scale, colormap, opacity)

    def compare(
        self, explained: Explained | None, left: int, right: int, scale: str, colormap: str, opacity: float
    ) -> Any:
        """Two maps, or the picture and a map, one over the other."""
        if explained is None:
            return gr.skip()
        return tuple(one_map(explained, index, Colours(scale, colormap, opacity)) for index in (left, right))

    def python(self, explained: Explained | None, index: int) -> Any:
        """The lines that give one of the maps."""
        if explained is None:
            return gr.skip()
        column, layer, target = place(explained, index)
        choice = explained.choice
        number = choice.targets[target]
        return snippet(self._source, choice.columns[column], choice.layers[layer], number, self.classes[number])

    def files(self, explained: Explained | None, scale: str, colormap: str, opacity: float) -> tuple[Any, ...]:
        """The figure and the arrays, ready to be downloaded."""
        if explained is None:
            return gr.skip(), gr.skip()
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        figure = save_page_figure(folder, explained, self.classes, Colours(scale, colormap, opacity))
        arrays = save_arrays(folder, explained, self.classes)
        return tuple(gr.update(value=str(path), interactive=True) for path in (figure, arrays))

    def _next(self, steps: Iterator[Explained]) -> Explained | None:
        with self._model:
            return next(steps, None)

    def _stopped(self, request: gr.Request) -> Callable[[], bool]:
        stop = self._stops.get(_tab(request), threading.Event())
        return lambda: stop.is_set() or self.closing.is_set()


@contextmanager
def _told() -> Iterator[None]:
    """What a person can correct is told on the page, in the line that the command line would print."""
    try:
        yield
    except UsageError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


def _tab(request: gr.Request) -> str:
    return str(request.session_hash)
