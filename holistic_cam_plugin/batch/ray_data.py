"""`holistic-cam batch --ray`: actors explain, and this process receives their rows."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from holistic_cam_plugin.batch.actor import ATTEMPTS, Actor, Attempts
from holistic_cam_plugin.batch.engine import BatchExplainer
from holistic_cam_plugin.batch.rows import OUTPUTS
from holistic_cam_plugin.batch.run import Rows
from holistic_cam_plugin.errors import OutputError, UsageError, describe_error

__all__ = ["explain_on_ray", "load_ray"]

MOST_FAILURES = 5  # batches in a row that no actor survives: then it is not their pictures' fault
# Ray reads these when it is imported. The last two keep its messages off the terminal; it still writes its log files.
_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}


def explain_on_ray(
    explainer: BatchExplainer, batches: Iterable[Rows], waits: dict[str, float], address: str | None = None
) -> Generator[Rows]:
    """Explain batches with one actor per GPU, or per core on a CPU; yield them in the order in which they are finished.

    An actor takes a batch when it has no more than one left, and Ray replaces dead actors.

    Args:
        explainer: Copied to each actor, which loads the model; its `root` must be visible to all of them.
        address: Of a running cluster, such as `"auto"` or `"10.0.0.1:6379"`. None: the one in `RAY_ADDRESS`, or a new
            one on this machine, which ends with this process.

    Raises:
        UsageError: Ray is not installed, there is no cluster at this address, or it has no GPU for `device="cuda"`.
        OutputError: The actors die whatever the batch, or the model or the device fails in one of them.
    """
    if not (left := list(batches)):
        return
    ray, start = load_ray(), time.perf_counter()
    try:
        _connect(ray, address)
        for _ in range(2):  # the pictures of a batch that no actor survives are tried one by one
            for number, rows in _map(ray, explainer, left):
                waits.setdefault("starting Ray", time.perf_counter() - start)
                if rows:
                    left[number] = {}
                    yield rows
            left = [dict(zip(rows, zip(row), strict=True)) for rows in left for row in zip(*rows.values(), strict=True)]
            if not left:
                return
    except ray.exceptions.RayError as error:
        raise OutputError(f"Ray failed: {describe_error(error)}") from error
    finally:
        ray.shutdown()
    for rows in left:
        reason = f"{ATTEMPTS} processes died while they explained it"
        yield {name: [None] for name in OUTPUTS} | dict(rows) | {"error": [reason]}


def load_ray() -> Any:
    """Import Ray; raises UsageError if it is not installed."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray.data
    except ImportError as error:
        raise UsageError(f'--ray needs Ray ({error}): pip install "holistic-cam-plugin[ray]"') from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _silence_stderr():
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"cannot connect to Ray at {address!r}: {describe_error(error)}") from error
    except Exception as error:  # also when the machine is so busy that Ray gives up
        raise OutputError(f"Ray did not start: {describe_error(error)}") from error
    signal.signal(signal.SIGTERM, handler)  # Ray's own one exits at once
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Keep off the terminal what Ray's C++ says about its own level of messages."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _count_actors(ray: Any, device: torch.device | str | None) -> tuple[int, int]:
    """Return the number of actors and the number of GPUs of each."""
    found = ray.cluster_resources()
    gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 0))
    chosen = torch.device(device or ("cuda" if gpus else "cpu"))
    if chosen.type != "cuda":
        return (max(1, cores) if chosen.type == "cpu" else 1), 0
    if chosen.index is not None:
        raise UsageError(f"--device {chosen} names one GPU, but Ray gives each actor its own: pass --device cuda")
    if not gpus:
        raise UsageError("Ray has no GPU: pass --device cpu")
    return gpus, 1


def _map(ray: Any, explainer: BatchExplainer, batches: Sequence[Rows]) -> Iterator[tuple[int, Rows]]:
    """Yield the number of each batch with its explained rows, or with none if no actor survived it."""
    actors, gpus = _count_actors(ray, explainer.device)
    items = [{"number": number, "rows": pickle.dumps(rows)} for number, rows in enumerate(batches)]
    explained = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Actor, fn_constructor_args=[explainer, ray.remote(num_cpus=0)(Attempts).remote()], batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(items)), max_tasks_in_flight_per_actor=2),
        num_cpus=1 - gpus, num_gpus=gpus,
    )  # fmt: skip
    failures = 0
    for row in explained.iter_rows():
        rows, messages, problem = pickle.loads(row["rows"])
        failures = 0 if rows else failures + 1
        if problem or failures == MOST_FAILURES:
            raise OutputError(problem or "the processes that Ray starts die: see its log files")
        for message in messages:
            warnings.warn(message, stacklevel=2)
        yield row["number"], rows
