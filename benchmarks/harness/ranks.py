"""Mean ranks of candidates over layers and metrics, and their gaps to a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks.harness.markdown import format_table
from benchmarks.harness.report import read_values
from holistic_cam_plugin.errors import UsageError

__all__ = ["compute_mean_ranks", "make_gap_table", "make_rank_table"]

RANKED = ("over_all", "ap", "iou", "grid_ap")
GAP_HEADER = (
    *("candidate", "pixels", "mean gap", "Over-all", "AP", "IoU", "AP in grids"),
    *("worst layer", "Lucidity, lowest layer"),
)
HEADER = ("candidate", "mean rank", "Over-all", "AP", "IoU", "AP in grids", "Lucidity, lowest layer")

Means = dict[tuple[str, str], dict[str, float]]  # by layer and metric, then by candidate


def compute_mean_ranks(means: Means, names: Sequence[str]) -> dict[str, float]:
    """Compute each candidate's mean rank over all layers and metrics; 1 is the best, ties share their mean rank."""
    cells = [values for (_, metric), values in means.items() if metric in RANKED]
    ranks = np.array([rankdata([-values[name] for name in names]) for values in cells])
    return dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))


def make_rank_table(paths: Sequence[Path], unranked: str, common: bool = False) -> str:
    """Make a table of candidates by mean rank, with means over the layers in percent, in Markdown.

    Args:
        paths: tables of networks with different layer names. Tables without over-all are of grids.
        unranked: candidates whose names start with this get no rank and come last.
        common: leave out candidates that a layer or metric lacks, instead of refusing them.

    Raises:
        UsageError: a layer or metric lacks a candidate.
    """
    means, lucid = _read_means(paths)
    names = [name for name in lucid if not common or all(name in found for found in means.values())]
    _check_complete(means, names)
    ranks = compute_mean_ranks(means, [name for name in names if not name.startswith(unranked)])
    ordered = sorted(names, key=lambda name: ranks.get(name, np.inf))
    rows = [_make_row(name, ranks.get(name), means, lucid[name]) for name in ordered]
    return format_table(HEADER, rows)


def make_gap_table(paths: Sequence[Path], reference: str, costs: Mapping[str, float]) -> str:
    """Make a table of candidates minus the reference, by the mean gap over layers and metrics, in Markdown.

    Args:
        paths: as in `make_rank_table`.
        reference: a candidate.
        costs: of the candidates, such as the pixels that the model sees.

    Raises:
        UsageError: a layer or metric lacks a candidate.
    """
    means, lucid = _read_means(paths)
    _check_complete(means, list(lucid))
    rows = []
    for name in lucid:
        gaps = {key: 100 * (found[name] - found[reference]) for key, found in means.items()}
        by_metric = [np.mean([gap for (_, metric), gap in gaps.items() if metric == ranked]) for ranked in RANKED]
        layers = dict.fromkeys(layer for layer, _ in gaps)
        worst = min(np.mean([gap for (own, _), gap in gaps.items() if own == layer]) for layer in layers)
        rows.append((float(np.mean(list(gaps.values()))), name, [*by_metric, worst]))
    rows.sort(reverse=True)
    body = [
        [name, f"{costs[name]:.1f}", f"{mean:+.2f}", *(f"{gap:+.1f}" for gap in gaps), f"{100 * min(lucid[name]):.0f}"]
        for mean, name, gaps in rows
    ]
    return format_table(GAP_HEADER, body)


def _read_means(paths: Sequence[Path]) -> tuple[Means, dict[str, list[float]]]:
    """Each candidate's means, and its median lucidity in each layer."""
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
    return means, lucid


def _check_complete(means: Means, names: Sequence[str]) -> None:
    for key, found in means.items():
        if missing := [name for name in names if name not in found]:
            raise UsageError(f"{missing[0]!r} has no {key[1]} at {key[0]}")


def _make_row(name: str, rank: float | None, means: Means, lucid: Sequence[float]) -> list[str]:
    over_layers = [
        np.mean([values[name] for (_, metric), values in means.items() if metric == ranked]) for ranked in RANKED
    ]
    return [
        name,
        "" if rank is None else f"{rank:.2f}",
        *(f"{100 * value:.1f}" for value in over_layers),
        f"{100 * min(lucid):.0f}",
    ]
