"""A process for each model: a crash, a hang or a model that is too large becomes a row."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import connection

import torch

from benchmarks.harness.runner import exit_with_parent
from benchmarks.zoo.judge import FAILED, Verdict, judge

__all__ = ["judge_all", "judge_apart"]

Judge = Callable[[str, str], Verdict]


def judge_all(library: str, names: Iterable[str], workers: int, seconds: float, gigabytes: float) -> Iterator[Verdict]:
    """Judge models in processes of their own, some at a time; yields the verdicts as they come."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(judge_apart, library, name, seconds, gigabytes) for name in names]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def judge_apart(library: str, name: str, seconds: float, gigabytes: float, judge: Judge = judge) -> Verdict:
    """Judge a model in a process of its own.

    Args:
        seconds: after which the process is killed.
        gigabytes: of memory that the process may reserve.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torchvision", library])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, judge, library, name, gigabytes), daemon=True)
    process.start()
    sender.close()
    verdict = Verdict(name, outcome=FAILED, step="process", reason=f"it took more than {seconds:g} seconds")
    if receiver.poll(seconds):
        verdict.reason = "the process died"
        with suppress(EOFError):
            verdict = receiver.recv()
    process.kill()
    process.join()
    return verdict


def _work(sender: connection.Connection, judge: Judge, library: str, name: str, gigabytes: float) -> None:
    exit_with_parent()
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(1)
    sender.send(judge(library, name))
