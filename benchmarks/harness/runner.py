"""Resumable runs of an experiment over images, in one or several processes."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from benchmarks.harness.arguments import HALVES
from benchmarks.harness.data import DIGITS, Sample, choose_samples, find_samples
from benchmarks.harness.grids import Grid, compose_grids
from benchmarks.harness.methods import check_methods
from benchmarks.harness.models import find_target_layers, load_model
from benchmarks.harness.table_file import Row, TableFile
from holistic_cam_plugin.errors import UsageError

__all__ = ["Evaluate", "Task", "choose_tasks", "exit_with_parent", "run", "run_main"]

SCENES = 200
# Arguments that may change when a run is resumed.
_FREE = ("output", "workers", "batch_size")


class Task(NamedTuple):
    """One image, and the grid in which it is the target, if any."""

    sample: Sample
    grid: Grid | None


# Returns the rows of one image. `make(arguments)` loads the model and builds this function, in each process.
Evaluate = Callable[[Task], list[Row]]
Make = Callable[[argparse.Namespace], Evaluate]


def run_main(main: Callable[[], None]) -> None:
    """Run `main`; errors that the user can correct are printed as one line, with exit code 2."""
    try:
        main()
    except (UsageError, ImportError) as error:  # of optional packages
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def choose_tasks(arguments: argparse.Namespace) -> list[Task]:
    """Choose the images, and set the arguments whose defaults depend on the model.

    Raises:
        UsageError: invalid arguments, or no image qualifies.
    """
    check_methods(arguments.methods)
    classifier = load_model(arguments)
    arguments.layers = find_target_layers(classifier, arguments.layers)
    if arguments.samples is None and str(arguments.images) == DIGITS:
        arguments.samples = SCENES
    found = find_samples(arguments)
    samples, unreadable = choose_samples(found, classifier, arguments.samples, arguments.min_confidence)
    if not samples:
        raise UsageError("no image is classified correctly with that confidence: lower --min-confidence")
    if unreadable:
        print(f"skipped {unreadable} unreadable images", file=sys.stderr)
    grids: Sequence[Grid | None] = compose_grids(samples, arguments.seed) if arguments.grid else [None] * len(samples)
    tasks = [Task(sample, grid) for sample, grid in zip(samples, grids, strict=True)]
    if arguments.half is None or str(arguments.images) == DIGITS:  # each half has its own scenes of digits
        return tasks
    return tasks[HALVES.index(arguments.half) :: 2]


def run(make: Make, arguments: argparse.Namespace, tasks: Sequence[Task], columns: Sequence[str], name: str) -> Path:
    """Evaluate the tasks that are not yet in the table.

    Args:
        make: builds the function that evaluates a task; a module-level function, as it is called in every process.
        arguments: stored beside the table, except those that change no value.
        columns: columns of the table.
        name: name of the table, without `.csv`.

    Returns:
        The path of the table.

    Raises:
        UsageError: the table was started with other arguments.
    """
    path: Path = arguments.output / f"{name}.csv"
    parameters = {key: value for key, value in vars(arguments).items() if key not in _FREE}
    parameters["chosen"] = hashlib.sha256("\n".join(task.sample.name for task in tasks).encode()).hexdigest()
    skipped = 0
    with TableFile(path, columns, parameters) as table:
        rest = tasks[table.units :]
        progress = tqdm(total=len(tasks), initial=table.units, desc=name, unit="image")
        for rows in _evaluate_all(make, arguments, rest):
            table.append(rows)
            skipped += not rows
            progress.update()
        progress.close()
    if skipped:
        print(f"skipped {skipped} unreadable images", file=sys.stderr)
    return path


def _evaluate_all(make: Make, arguments: argparse.Namespace, tasks: Sequence[Task]) -> Iterator[list[Row]]:
    """Yield each task's rows, in order; none for unreadable images."""
    if not tasks:
        return
    if arguments.workers == 1:
        evaluate = make(arguments)
        yield from (_try(evaluate, task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, _start_worker, (make, arguments)) as pool:
        # At most two tasks per worker, so that a kill loses little work.
        waiting = iter(tasks)
        pending: list[Future[list[Row]]] = [pool.submit(_work, t) for t in islice(waiting, 2 * arguments.workers)]
        while pending:
            yield pending.pop(0).result()
            pending += [pool.submit(_work, task) for task in islice(waiting, 1)]


def _try(evaluate: Evaluate, task: Task) -> list[Row]:
    try:
        return evaluate(task)
    except UsageError as error:
        tqdm.write(f"skipped: {error}", file=sys.stderr)
        return []


_worker: list[Evaluate] = []  # the function of this process


def exit_with_parent() -> None:
    """Make this worker process exit if its parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


def _start_worker(make: Make, arguments: argparse.Namespace) -> None:
    exit_with_parent()
    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.workers))
    _worker.append(make(arguments))


def _work(task: Task) -> list[Row]:
    return _try(_worker[0], task)
