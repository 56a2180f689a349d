"""The throughput benchmark, with real runs."""

from __future__ import annotations

import os

import pytest

from benchmarks.throughput import COLUMNS, main, make_table, measure, measure_apart
from holistic_cam_plugin.errors import UsageError

QUICK = ["--model", "digits", "--sizes", "64", "--workers", "0"]


@pytest.mark.campaign
def test_a_round_is_measured_and_added_to_the_table(tmp_path, capsys):
    pytest.importorskip("ray.data", reason="needs ray[data]")
    main(["--images", "6", "--rounds", "1", "--sizes", "64", "--output", str(tmp_path), "--workers", "0"])
    lines = (tmp_path / "throughput.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    cores = os.cpu_count()
    for line, kind in zip(lines[1:], ["1", f"{cores} on Ray", f"{cores} apart"], strict=True):
        assert line.startswith(f"digits,last,6,{kind},")
        assert ("Ray" in kind) == (float(line.split(",")[5]) > 0)
    assert "| digits, last | 6 | 1 | " in capsys.readouterr().out


@pytest.mark.campaign
def test_the_control_shares_the_images(tmp_path):
    result = measure_apart(tmp_path, 3, 2, QUICK)
    assert result.images == 3
    assert result.seconds > 0
    assert [len(list((tmp_path / f"apart-{number}" / "maps").rglob("*.npz"))) for number in (0, 1)] == [2, 1]


def test_the_table_compares_with_one_process(tmp_path):
    path = tmp_path / "throughput.csv"
    rows = ["40,1,20,0,1.0", "40,1,40,0,3.0", "40,1,10,0,2", "40,2 on Ray,10,15.2,0", "40,2 apart,8,0,0"]
    path.write_text("\n".join([",".join(COLUMNS), *(f"net,last,{row}" for row in rows), ""]))
    assert make_table(path).splitlines()[2:] == [
        "| net, last | 40 | 1 | 2.00 [1.00, 4.00] | 1.00 |  | 2.0 % |",
        "| net, last | 40 | 2 apart | 5.00 [5.00, 5.00] | 2.50 |  | 0.0 % |",
        "| net, last | 40 | 2 on Ray | 4.00 [4.00, 4.00] | 2.00 | 15.2 |  |",
    ]


@pytest.mark.campaign
def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(UsageError, match=r"the batch failed: holistic-cam batch: error: the model has no layer 'x'"):
        measure(tmp_path, 1, [*QUICK, "--layers", "x"])
