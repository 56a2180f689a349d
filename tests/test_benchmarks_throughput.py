"""The throughput benchmark: a real run, and its table."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.throughput import COLUMNS, main, measured, table
from holistic_cam_plugin.cli.errors import UsageError


def test_a_round_is_measured_and_added_to_the_table(tmp_path, capsys):
    output = tmp_path / "out"
    main(["--images", "2", "--ranks", "1", "--rounds", "1", "--sizes", "64", "--output", str(output), "--workers", "0"])
    lines = (output / "throughput.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1].startswith("digits,last,2,1,")
    assert "| digits, last | 1 | " in capsys.readouterr().out


def test_the_table_compares_with_one_rank(tmp_path):
    path = tmp_path / "throughput.csv"
    path.write_text(
        ",".join(COLUMNS) + "\nnet,last,40,1,20,1.0\nnet,last,40,1,40,3.0\nnet,last,40,1,10,2\nnet,last,40,2,10,1\n"
    )
    assert table(path).splitlines()[2:] == [
        "| net, last | 1 | 2.00 [1.00, 4.00] | 1.00 | 2.0 % |",
        "| net, last | 2 | 4.00 [4.00, 4.00] | 2.00 | 1.0 % |",
    ]


def test_a_run_that_fails_says_why(tmp_path, monkeypatch):
    commands = []

    def failing(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 2, "", "error: the model has no layer 'x'")

    monkeypatch.setattr(subprocess, "run", failing)
    with pytest.raises(UsageError, match=r"the batch failed: error: the model has no layer 'x'"):
        measured(tmp_path / "photos", tmp_path / "out", 2, ["--layers", "x"])
    assert commands[0][1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
