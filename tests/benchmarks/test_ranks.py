"""Mean ranks of candidates, computed by hand."""

from __future__ import annotations

import pytest

from benchmarks.harness.ranks import compute_mean_ranks, make_gap_table, make_rank_table
from benchmarks.harness.table_file import TableFile
from holistic_cam_plugin.errors import UsageError

COLUMNS = ("image", "layer", "method", "over_all", "ap", "iou", "lucidity")


def write(path, rows):
    path.parent.mkdir(parents=True)
    with TableFile(path, COLUMNS, {}) as table_file:
        table_file.append([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    return path


@pytest.fixture
def tables(tmp_path):
    own = [
        ("1", "a", "A", 0.9, 0.5, 0.3, 0.2),
        ("2", "a", "A", 0.7, 0.5, 0.3, 0.4),
        ("1", "a", "B", 0.5, 0.6, 0.4, 1.0),
        ("2", "a", "B", 0.5, 0.8, 0.4, 1.0),
        ("1", "a", "pge", 1.0, 1.0, 1.0, 0.1),
    ]
    grid = [("1", "a", "A", "", 0.2, 0.9, ""), ("1", "a", "B", "", 0.2, 0.1, ""), ("1", "a", "pge", "", 0.3, 1.0, "")]
    return [write(tmp_path / "photos" / "t.csv", own), write(tmp_path / "grid" / "t.csv", grid)]


def test_ranks_are_means_over_layers_and_measures(tables):
    # Over-all A, B; AP and IoU B, A; AP in grids a tie. The grids' IoU does not count, nor does pge.
    assert make_rank_table(tables, "pge").splitlines()[2:] == [
        "| B | 1.38 | 50.0 | 70.0 | 40.0 | 20.0 | 100 |",
        "| A | 1.62 | 80.0 | 50.0 | 30.0 | 20.0 | 30 |",
        "| pge |  | 100.0 | 100.0 | 100.0 | 30.0 | 10 |",
    ]


def test_ties_share_their_rank():
    means = {("a", "ap"): {"A": 0.5, "B": 0.5, "C": 0.1}, ("a", "epg"): {"A": 0.0, "B": 1.0, "C": 1.0}}
    assert compute_mean_ranks(means, ["A", "B", "C"]) == {"A": 1.5, "B": 1.5, "C": 3}


def test_missing_candidates_are_named(tables, tmp_path):
    more = write(tmp_path / "more" / "t.csv", [("1", "a", "C", 0.9, 0.5, 0.3, 0.2)])
    with pytest.raises(UsageError, match="'C' has no grid_ap at a"):
        make_rank_table([*tables, more], "pge")
    assert make_rank_table([*tables, more], "pge", common=True) == make_rank_table(tables, "pge")


def test_gaps_are_means_over_layers_and_measures(tables):
    # Of A to pge: over-all 80 - 100, AP 50 - 100, IoU 30 - 100, AP in grids 20 - 30.
    costs = {"A": 2.0, "B": 1.25, "pge": 3.0}
    assert make_gap_table(tables, "pge", costs).splitlines()[2:] == [
        "| pge | 3.0 | +0.00 | +0.0 | +0.0 | +0.0 | +0.0 | +0.0 | 10 |",
        *sorted(
            [
                "| A | 2.0 | -37.50 | -20.0 | -50.0 | -70.0 | -10.0 | -37.5 | 30 |",
                "| B | 1.2 | -37.50 | -50.0 | -30.0 | -60.0 | -10.0 | -37.5 | 100 |",
            ],
            reverse=True,
        ),
    ]
