"""Tables of time and memory."""

from __future__ import annotations

import csv

from benchmarks import latency_report
from benchmarks.harness.procedures import FLOORS, FORWARD
from benchmarks.latency_report import COLUMNS, make_latency_tables


def test_ratios_are_those_of_the_same_round_with_the_faster_floor(tmp_path):
    table = tmp_path / "latency.csv"
    procedures = [*FLOORS, "Holistic-CAM", FORWARD, "Class Holistic-CAM"]
    rounds = [(1.0, 2.0, 3.0, 0.5, 4.0), (1.0, 3.0, 3.0, 0.5, 5.0), (5.0, 4.0, 8.0, 2.0, 6.0)]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, values in enumerate(rounds):
            for layer, procedure, value in zip("--x-x", procedures, values, strict=True):
                writer.writerow(["net", layer, 1, "float32", procedure, "seconds", number, value])
        for layer, procedure, value in zip("--x", procedures[:3], (100, 50, 200), strict=True):
            writer.writerow(["net", layer, 1, "float32", procedure, "bytes", 9, value])
    lines = make_latency_tables([table]).splitlines()
    # NCHW's median is 1, the other's 3.
    assert "| Holistic-CAM / floor | 3 [2.3, 3] |" in lines
    assert "| Class Holistic-CAM / one forward pass | 8 [5.5, 9] |" in lines
    assert "| memory: Holistic-CAM / floor | 2 |" in lines


def test_the_report_reads_files(tmp_path, capsys):
    table = tmp_path / "latency.csv"
    table.write_text(",".join(COLUMNS) + "\nnet,x,4,float32,SESS,seconds,1,2.5\n")
    latency_report.main([str(table)])
    assert "| SESS | x | float32 | 2.5 |  |" in capsys.readouterr().out
