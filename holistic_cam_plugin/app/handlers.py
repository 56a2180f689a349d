"""Event handlers of the page: runs, and what is made of their results.

Gradio keeps each browser tab's picture and maps; the classifier is shared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from torch import nn

from holistic_cam_plugin.app.choices import check_choice, select_methods
from holistic_cam_plugin.app.looking import PictureHandlers, Seen
from holistic_cam_plugin.app.rendering import Colours, Result, render_pair, render_table
from holistic_cam_plugin.app.shown import Shown, complain, show_figure, show_result, write_python
from holistic_cam_plugin.app.snippet import Source
from holistic_cam_plugin.errors import Stopped, UsageError
from holistic_cam_plugin.explain import Explanation, Request, explain
from holistic_cam_plugin.methods import Method

__all__ = ["Handlers"]

_progress = gr.Progress()


class _Run:
    """What a tab computes, or waits for: how to stop it, and the colours to show it in."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.colours: Colours | None = None  # chosen while it runs


class Handlers(PictureHandlers):
    """The functions that the page calls.

    Args:
        source: the classifier to load.
        folder: for the files to download.

    Attributes:
        closing: set it to stop all computations.

    Raises:
        UsageError: the classifier cannot be loaded, or has no layer to explain.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        super().__init__(source)
        self.closing = threading.Event()
        self._source = source._replace(device=str(self.classifier.device))
        self._folder = folder
        self._runs: dict[str, _Run] = {}  # of the tabs that compute, or wait for the model

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """Set the buttons and the status while the tab waits for the model."""
        self._runs[_identify_tab(request)] = _Run()
        return gr.update(interactive=False), gr.update(interactive=True), "Waiting for the model"

    def stop(self, request: gr.Request) -> str:
        """Stop the tab's computation at the next pass through the model; returns the status."""
        if run := self._runs.get(_identify_tab(request)):
            run.stop.set()
            return "Stopping"
        return ""

    def leave(self, request: gr.Request) -> None:
        """Stop the computation of a tab that is closed."""
        if run := self._runs.pop(_identify_tab(request), None):
            run.stop.set()

    def explain(
        self,
        seen: Seen | None,
        texts: str | None,
        targets: Sequence[int],
        layers: Sequence[str],
        methods: Sequence[str],
        weightings: Sequence[str],
        pyramid: str,
        num_scales: int,
        sizes: str,
        fsd: bool,
        scale: str,
        colormap: str,
        opacity: float,
        tab: gr.Request,
        progress: gr.Progress = _progress,
    ) -> Iterator[Shown]:
        """Yield the result and its table after each method, and in the end all that is shown of it.

        What the user can correct is told in the status, beside the maps that are there.
        """
        run = self._runs.get(_identify_tab(tab)) or _Run()
        shown, status, start = Shown(), "", time.perf_counter()
        colours = Colours(scale, colormap, opacity)
        result = None
        try:
            seen = self._check_seen(seen, texts)
            columns = select_methods(methods, weightings, pyramid, num_scales, sizes, fsd, self._source.amp)
            check_choice(targets, layers, columns)
            for result in self._compute(seen, targets, layers, columns, run, progress):
                yield Shown(result, render_table(result, run.colours or colours))
            number = len(columns) * len(targets) * len(layers)
            status = f"{number} maps in {time.perf_counter() - start:.1f} s"
        except UsageError as error:
            status = complain(error)
        except Stopped:
            done = len(result.explanation.maps) if result else 0
            status = f"Stopped after {done} of {len(columns)} columns"
        if result:
            shown = show_result(result, run.colours or colours, self._source, self._folder)
        self._runs.pop(_identify_tab(tab), None)
        yield shown._replace(status=status, start=gr.update(interactive=True), stop=gr.update(interactive=False))

    def fail(self, request: gr.Request) -> tuple[Any, ...]:
        """Reset the buttons and the status after an error that Gradio shows."""
        self._runs.pop(_identify_tab(request), None)
        return gr.update(interactive=True), gr.update(interactive=False), "Error: a value is not valid"

    def colour(
        self,
        result: Result | None,
        left: int | None,
        right: int | None,
        scale: str,
        colormap: str,
        opacity: float,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        """Draw the table and the comparison in other colours; a run takes them for its next column."""
        colours = Colours(scale, colormap, opacity)
        if run := self._runs.get(_identify_tab(request)):
            run.colours = colours
        if run or result is None:
            return gr.skip(), gr.skip()
        return render_table(result, colours), self.compare(result, left, right, *colours)

    def compare(
        self, result: Result | None, left: int | None, right: int | None, scale: str, colormap: str, opacity: float
    ) -> Any:
        """Draw two maps, or the picture and a map."""
        if result is None or left is None or right is None:
            return gr.skip()
        return render_pair(result, left, right, Colours(scale, colormap, opacity))

    def python(self, result: Result | None, index: int | None) -> Any:
        """Write the script that computes one of the maps."""
        return gr.skip() if result is None or index is None else write_python(result, index, self._source)

    def figure(self, result: Result | None, scale: str, colormap: str, opacity: float) -> Any:
        """Write the figure in other colours."""
        return gr.skip() if result is None else show_figure(result, Colours(scale, colormap, opacity), self._folder)

    def _compute(
        self,
        seen: Seen,
        targets: Sequence[int],
        layers: Sequence[str],
        columns: Sequence[Method],
        run: _Run,
        progress: gr.Progress,
    ) -> Iterator[Result]:
        """Yield the result after each method."""
        request = Request(seen.classifier, seen.classifier.at(layers), columns)
        steps = explain(
            request, seen.prediction, [targets],
            lambda column, loop: progress.tqdm(
                loop, desc=f"{columns.index(column) + 1} of {len(columns)}: {column.name}"
            ),
        )  # fmt: skip
        while (explanation := self._compute_next(steps, seen.classifier.model, run.stop)) is not None:
            yield Result(seen.picture, explanation, seen.classes)

    def _compute_next(
        self, steps: Iterator[list[Explanation]], model: nn.Module, stop: threading.Event
    ) -> Explanation | None:
        """The picture's explanation after one more method, or None after the last one."""
        with self._model, _check_passes(model, lambda: stop.is_set() or self.closing.is_set()):
            return next(steps, [None])[0]


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


def _identify_tab(request: gr.Request) -> str:
    return str(request.session_hash)
