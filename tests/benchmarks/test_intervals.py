"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.intervals import bootstrap


def test_agrees_with_the_normal_distribution():
    values = np.random.default_rng(1).normal(5, 2, 400)
    interval = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert bootstrap(values) == interval  # the same again


def test_agrees_with_a_literal_bootstrap():
    values = np.random.default_rng(2).exponential(1, 30)  # skewed: no normal interval
    rng = np.random.default_rng(3)
    means = [values[rng.integers(0, 30, 30)].mean() for _ in range(20_000)]
    assert bootstrap(values)[1:] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.03)


def test_many_images_take_bounded_memory(monkeypatch):
    shapes = []
    original = np.mean
    monkeypatch.setattr(np, "mean", lambda x, axis=None, **rest: shapes.append(x.shape) or original(x, axis, **rest))
    bootstrap(np.random.default_rng(0).random(5_000))
    assert max(np.prod(shape) for shape in shapes) <= 2**22
    assert len(shapes) > 10


def test_what_is_always_the_same_has_no_width():
    assert bootstrap([0.25]) == (0.25, 0.25, 0.25)
    assert bootstrap([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
