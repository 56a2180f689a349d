"""The throughput benchmark, with real runs."""

from __future__ import annotations

import pytest

from benchmarks.throughput import COLUMNS, main, make_table, measure, measure_apart
from holistic_cam_plugin.errors import UsageError

QUICK = ["--model", "digits", "--sizes", "64", "--workers", "0"]


@pytest.mark.campaign
def test_a_round_is_measured_and_added_to_the_table(tmp_path, capsys):
    main(
        ["--images", "2", "--ranks", "1", "--rounds", "1", "--sizes", "64", "--output", str(tmp_path), "--workers", "0"]
    )
    lines = (tmp_path / "throughput.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1].startswith("digits,last,2,1,")
    assert "| digits, last | 1 | " in capsys.readouterr().out


@pytest.mark.campaign
def test_the_control_shares_the_images(tmp_path):
    result = measure_apart(tmp_path, 3, 2, QUICK)
    assert result.images == 3
    assert result.seconds > 0
    assert [len(list((tmp_path / f"apart-{number}" / "maps").rglob("*.npz"))) for number in (0, 1)] == [2, 1]


def test_the_table_compares_with_one_rank(tmp_path):
    path = tmp_path / "throughput.csv"
    rows = ["40,1,20,1.0,2", "40,1,40,3.0,3", "40,1,10,2,2", "40,2,10,1,3", "40,2 apart,8,0,2"]
    path.write_text("\n".join([",".join(COLUMNS), *(f"net,last,{row}" for row in rows), ""]))
    assert make_table(path).splitlines()[2:] == [
        "| net, last | 1 | 2.00 [1.00, 4.00] | 1.00 | 2.000 | 2.0 % |",
        "| net, last | 2 | 4.00 [4.00, 4.00] | 2.00 | 3.000 | 1.0 % |",
        "| net, last | 2 apart | 5.00 [5.00, 5.00] | 2.50 | 2.000 | 0.0 % |",
    ]


@pytest.mark.campaign
def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(UsageError, match=r"the batch failed: holistic-cam batch: error: the model has no layer 'x'"):
        measure(tmp_path, 1, 1, [*QUICK, "--layers", "x"])
