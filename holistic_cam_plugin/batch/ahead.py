"""Work ahead in threads: Pillow, NumPy and the disk release Python's lock, and a killed process leaves none behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ahead"]

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int, waited: Callable[[float], object] = bool
) -> Generator[R]:
    """Yield the function's results in order, computed by threads, at most `ahead` items before they are needed.

    Args:
        items: Are taken by the calling thread.
        waited: Called with the seconds that the calling thread waited for a result.
    """
    pool, unfinished = ThreadPoolExecutor(threads), deque[Future[R]]()

    def take() -> R:
        start = time.perf_counter()
        result = unfinished.popleft().result()
        waited(time.perf_counter() - start)
        return result

    try:
        for item in items:
            unfinished.append(pool.submit(function, item))
            if len(unfinished) > ahead:
                yield take()
        while unfinished:
            yield take()
    finally:
        pool.shutdown()  # what is explained is still written
