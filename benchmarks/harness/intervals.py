"""Bootstrap intervals of means over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Interval", "bootstrap"]

RESAMPLES = 10_000
ELEMENTS = 2**22  # of the resamples in memory, 32 MB


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | NDArray[np.float64], seed: int = 0) -> Interval:
    """Compute the mean and its 95 % percentile interval over 10,000 resamples of the images."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) == 1:  # SciPy rejects a single value
        return Interval(mean, mean, mean)
    result = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, ELEMENTS // len(sample)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high))
