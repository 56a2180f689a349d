"""What runs in the processes of Ray. Imports nothing that takes time: only the explainer that they are given does."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from holistic_cam_plugin.errors import describe_error

__all__ = ["ATTEMPTS", "Actor", "Attempts"]

ATTEMPTS = 3  # at a batch whose actor dies


class Attempts:
    """Counts in a process of its own how often each batch was begun: Ray itself would try for ever."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, number: int) -> int:
        self.counts[number] += 1
        return self.counts[number]


class Actor:
    """Explains batches, which travel pickled, so that all values keep their types."""

    def __init__(self, explainer: Callable[[Any], Any], attempts: Any) -> None:
        self.explainer, self.attempts = explainer, attempts

    def __call__(self, item: Mapping[str, Any]) -> dict[str, list[Any]]:
        import ray

        number, rows, problem = int(item["number"][0]), {}, ""
        with warnings.catch_warnings(record=True) as caught:
            try:
                if ray.get(self.attempts.add.remote(number)) <= ATTEMPTS:
                    rows = self.explainer(pickle.loads(item["rows"][0]))
            except Exception as error:  # no picture's fault: the run ends
                problem = describe_error(error)
        messages = [str(warning.message) for warning in caught]
        return {"number": [number], "rows": [pickle.dumps((rows, messages, problem))]}
