"""Runs an experiment over the images: resumable, with progress, in one process or several."""

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
from benchmarks.harness.data import Sample, candidates, taken
from benchmarks.harness.grids import Grid, compose
from benchmarks.harness.methods import check_methods
from benchmarks.harness.models import DIGITS, load_model, target_layers
from benchmarks.harness.table_file import TableFile
from holistic_cam_plugin.batch.journal import Row
from holistic_cam_plugin.errors import UsageError

__all__ = ["Evaluate", "Task", "command", "prepared", "run"]

SCENES = 200
# What can change between a run and its continuation without changing a value.
_FREE = ("output", "workers", "batch_size")


class Task(NamedTuple):
    """One image, and the grid in which it is the target where there are grids."""

    sample: Sample
    grid: Grid | None


# From one image to its rows. `make(arguments)` builds it in every process, where it loads the model.
Evaluate = Callable[[Task], list[Row]]
Make = Callable[[argparse.Namespace], Evaluate]


def command(main: Callable[[], None]) -> None:
    """Run an experiment's `main`; what the user can correct is one line and exit code 2."""
    try:
        main()
    except (UsageError, ImportError) as error:  # a method may need an optional package
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def prepared(arguments: argparse.Namespace) -> list[Task]:
    """Fill in the arguments' defaults that depend on the model, and choose the images.

    Raises:
        UsageError: arguments that can't work, or no image that qualifies.
    """
    check_methods(arguments.methods)
    classifier = load_model(arguments)
    arguments.layers = target_layers(classifier, arguments.layers)
    if arguments.samples is None and str(arguments.images) == DIGITS:
        arguments.samples = SCENES
    samples, unreadable = taken(candidates(arguments), classifier, arguments.samples, arguments.min_confidence)
    if not samples:
        raise UsageError("no image is classified correctly with that confidence: lower --min-confidence")
    if unreadable:
        print(f"skipped {unreadable} unreadable images", file=sys.stderr)
    grids: Sequence[Grid | None] = compose(samples, arguments.seed) if arguments.grid else [None] * len(samples)
    tasks = [Task(sample, grid) for sample, grid in zip(samples, grids, strict=True)]
    if arguments.half is None or str(arguments.images) == DIGITS:  # scenes of digits are drawn for their half
        return tasks
    return tasks[HALVES.index(arguments.half) :: 2]


def run(make: Make, arguments: argparse.Namespace, tasks: Sequence[Task], columns: Sequence[str], name: str) -> Path:
    """Evaluate the tasks that the table does not hold yet; the table's path.

    Args:
        make: builds the evaluation in every process; a function of a module.
        arguments: what the values depend on is kept beside the table.
        columns: of the rows.
        name: of the table, without `.csv`.

    Raises:
        UsageError: the table was begun with other arguments.
    """
    path: Path = arguments.output / f"{name}.csv"
    parameters = {key: value for key, value in vars(arguments).items() if key not in _FREE}
    parameters["chosen"] = hashlib.sha256("\n".join(task.sample.name for task in tasks).encode()).hexdigest()
    skipped = 0
    with TableFile(path, columns, parameters) as table:
        rest = tasks[table.units :]
        progress = tqdm(total=len(tasks), initial=table.units, desc=name, unit="image")
        for rows in _evaluated(make, arguments, rest):
            table.append(rows)
            skipped += not rows
            progress.update()
        progress.close()
    if skipped:
        print(f"skipped {skipped} unreadable images", file=sys.stderr)
    return path


def _evaluated(make: Make, arguments: argparse.Namespace, tasks: Sequence[Task]) -> Iterator[list[Row]]:
    """Every task's rows, in order; an image that can't be read has none."""
    if not tasks:
        return
    if arguments.workers == 1:
        evaluate = make(arguments)
        yield from (_rows(evaluate, task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, _start_worker, (make, arguments)) as pool:
        # Two tasks a worker at a time: a kill loses no more than what is in flight.
        waiting = iter(tasks)
        flying: list[Future[list[Row]]] = [pool.submit(_work, t) for t in islice(waiting, 2 * arguments.workers)]
        while flying:
            yield flying.pop(0).result()
            flying += [pool.submit(_work, task) for task in islice(waiting, 1)]


def _rows(evaluate: Evaluate, task: Task) -> list[Row]:
    try:
        return evaluate(task)
    except UsageError as error:
        tqdm.write(f"skipped: {error}", file=sys.stderr)
        return []


_worker: list[Evaluate] = []  # of this process


def _start_worker(make: Make, arguments: argparse.Namespace) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:  # a killed parent can't stop its workers
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.workers))
    _worker.append(make(arguments))


def _work(task: Task) -> list[Row]:
    return _rows(_worker[0], task)
