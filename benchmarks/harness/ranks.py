"""Candidates by their mean rank over layers and measures: the rule of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks.harness.markdown import table_text
from benchmarks.harness.report import read_values
from holistic_cam_plugin.errors import UsageError

__all__ = ["mean_ranks", "rank_table"]

RANKED = ("over_all", "ap", "iou", "grid_ap")
HEADER = ("candidate", "mean rank", "Over-all", "AP", "IoU", "AP in grids", "Lucidity, lowest layer")

Means = dict[tuple[str, str], dict[str, float]]  # by layer and measure, then by candidate


def mean_ranks(means: Means, names: Sequence[str]) -> dict[str, float]:
    """The mean rank of each candidate over all layers and measures, 1 the best, ties by their mean rank."""
    cells = [values for (_, measure), values in means.items() if measure in RANKED]
    ranks = np.array([rankdata([-values[name] for name in names]) for values in cells])
    return dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))


def rank_table(paths: Sequence[Path], unranked: str) -> str:
    """Candidates in the order of their rank, with their means over the layers in percent, as Markdown.

    Args:
        paths: tables of several networks, whose layers have different names. Those without over-all are of grids.
        unranked: candidates whose names begin with this are shown without a rank, last.

    Raises:
        UsageError: a candidate that some layer or measure lacks.
    """
    means: Means = {}
    lucid: dict[str, list[float]] = {}
    for path in paths:
        values = read_values([path])
        on_grid = not any("over_all" in found for found in values.values())
        for (layer, name), found in values.items():
            for metric in ("ap",) if on_grid else ("over_all", "ap", "iou"):
                key = layer, f"grid_{metric}" if on_grid else metric
                means.setdefault(key, {})[name] = float(np.mean(list(found[metric].values())))
            if not on_grid:
                lucid.setdefault(name, []).append(float(np.median(list(found["lucidity"].values()))))
    names = list(lucid)
    for key, found_means in means.items():
        if missing := [name for name in names if name not in found_means]:
            raise UsageError(f"{missing[0]!r} has no {key[1]} at {key[0]}")
    ranks = mean_ranks(means, [name for name in names if not name.startswith(unranked)])
    ordered = sorted(names, key=lambda name: ranks.get(name, np.inf))
    rows = [_row(name, ranks.get(name), means, lucid[name]) for name in ordered]
    return table_text(HEADER, rows)


def _row(name: str, rank: float | None, means: Means, lucid: Sequence[float]) -> list[str]:
    over_layers = [
        np.mean([values[name] for (_, measure), values in means.items() if measure == ranked]) for ranked in RANKED
    ]
    return [
        name,
        "" if rank is None else f"{rank:.2f}",
        *(f"{100 * value:.1f}" for value in over_layers),
        f"{100 * min(lucid):.0f}",
    ]
