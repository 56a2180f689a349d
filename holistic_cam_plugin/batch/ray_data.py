"""The loop of `holistic-cam batch` on Ray: actors explain, and this process receives their rows."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from holistic_cam_plugin.batch.engine import BatchExplainer
from holistic_cam_plugin.batch.rows import OUTPUTS
from holistic_cam_plugin.errors import OutputError, UsageError, describe_error

__all__ = ["explain_on_ray"]

ATTEMPTS = 3  # at a batch whose actor dies
MOST_FAILURES = 5  # batches in a row that no actor survives: then it is not their pictures' fault
# Ray reads these when it is imported. The last two keep its own messages off the terminal; its log files remain.
_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}


def explain_on_ray(
    explainer: BatchExplainer, rows: Sequence[Mapping[str, Any]], batch_size: int, address: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the explained rows in the order in which they are finished.

    There is one actor per GPU, or per core on a CPU. Each one takes a batch when it is free; Ray replaces dead actors. A
    picture at which three actors died is a row with an error.

    Args:
        explainer: Is copied to each actor, which loads the model. The pictures' folder must be visible to all actors.
        rows: The columns of `BatchExplainer.__call__`; no two rows have the same `file`.
        batch_size: Images per batch.
        address: Of a running cluster, such as `"auto"` or `"10.0.0.1:6379"`. None: the cluster that `RAY_ADDRESS` names,
            or a new one on this machine, which ends with this process.

    Raises:
        UsageError: Ray is not installed, there is no cluster at this address, or it has no GPU for a model on CUDA.
        OutputError: Actors die repeatedly, or the model or the device fails in one of them.
    """
    left = {row["file"]: row for row in rows}
    with _connect(address) as ray:
        size = _count_actors(ray, explainer.device)
        for number in (batch_size, 1):  # the pictures of a batch that no actor survives are tried one by one
            for row in _map(ray, explainer, list(left.values()), number, size):
                del left[row["file"]]
                yield row
            if not left:
                return
    for file in left:
        failed = {"file": file, "error": f"{ATTEMPTS} processes died while they explained it"}
        yield dict.fromkeys(OUTPUTS) | {"archive": b"", "overlay": b"", "maps": []} | failed


@contextmanager
def _connect(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one; yields the module `ray`."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(f'--ray needs Ray ({error}): pip install "holistic-cam-plugin[ray]"') from error
    handler = signal.getsignal(signal.SIGTERM)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"cannot connect to Ray at {address!r}: {describe_error(error)}") from error
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray's own one exits at once
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()


def _count_actors(ray: Any, device: torch.device | str | None) -> tuple[int, int]:
    """Return the number of actors and the number of GPUs of each."""
    found = ray.cluster_resources()
    gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 0))
    chosen = torch.device(device or ("cuda" if gpus else "cpu"))
    if chosen.type == "cuda":
        if chosen.index is not None:
            raise UsageError(f"--device {chosen} names one GPU, but Ray assigns one to each actor: pass --device cuda")
        if not gpus:
            raise UsageError("Ray has no GPU: pass --device cpu")
        return gpus, 1
    return (max(1, cores), 0) if chosen.type == "cpu" else (1, 0)


def _map(
    ray: Any, explainer: BatchExplainer, rows: Sequence[Mapping[str, Any]], batch_size: int, size: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """Yield the explained rows, without the batches that no actor survived."""
    batches = [pickle.dumps(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    items = [{"id": number, "rows": batch} for number, batch in enumerate(batches)]
    actors, gpus = size
    explained = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=[explainer, ray.remote(num_cpus=0)(_Attempts).remote()],
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(batches)), max_tasks_in_flight_per_actor=1),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
    )
    failures = 0
    try:
        for batch in explained.iter_rows():
            found, messages, problem = pickle.loads(batch["rows"])
            failures = 0 if found else failures + 1
            if problem or failures == MOST_FAILURES:
                raise OutputError(problem or "the processes that Ray starts die: see its log files")
            for message in messages:
                warnings.warn(message, stacklevel=2)
            yield from found
    except ray.exceptions.RayError as error:
        raise OutputError(f"Ray failed: {describe_error(error)}") from error


class _Attempts:
    """Counts how often each batch was begun, in a process of its own."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, batch: int) -> int:
        self.counts[batch] += 1
        return self.counts[batch]


class _Actor:
    """Explains batches; rows travel pickled, so that all values keep their types."""

    def __init__(self, explainer: BatchExplainer, attempts: Any) -> None:
        self.explainer, self.attempts = explainer, attempts

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        import ray

        found, messages, problem = [], [], ""
        if ray.get(self.attempts.add.remote(int(batch["id"][0]))) <= ATTEMPTS:
            rows = pickle.loads(batch["rows"][0])
            with warnings.catch_warnings(record=True) as caught:
                try:
                    columns = self.explainer({name: [row[name] for row in rows] for name in rows[0]})
                    found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
                except Exception as error:  # no picture's fault: the run ends
                    problem = describe_error(error)
            messages = [str(warning.message) for warning in caught]
        return {"rows": [pickle.dumps((found, messages, problem))]}
