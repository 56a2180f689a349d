"""Tables of a README that are generated from the files that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import rewrite_page
from holistic_cam_plugin.errors import UsageError

HEADER = "image,layer,method,ins,del,over_all,road,road_halved,epg,epg_top100,tied\n\n"
ROWS = """\
a,conv1,CAM,0.2,,0.5,,,,,
b,conv1,CAM,0.4,,0.7,,,,,
a,conv1,CAM++,0.6,,0.5,,,,,
b,conv1,CAM++,0.6,,0.5,,,,,
a,conv1,New,0.8,,,,,,,
a,conv2,CAM,0.9,,0.1,,,,,
b,conv2,CAM,0.9,,0.3,,,,,
a,-,Blind,0.1,,0.1,,,,,
b,-,Blind,0.1,,0.1,,,,,
"""


@pytest.fixture
def made(tmp_path: Path):
    """Makes the lines of the table from a comment and the old table."""
    (tmp_path / "t.csv").write_text(HEADER + ROWS + "\n")

    def make(spec: str, old: str = "") -> list[str]:
        text = rewrite_page(f"before\n\n<!-- table: {spec} -->\n{old}\nafter\n", tmp_path)
        assert text.startswith(f"before\n\n<!-- table: {spec} -->\n|")
        assert text.endswith("|\n\nafter\n")
        assert rewrite_page(text, tmp_path) == text
        return [line for line in text.splitlines() if line.startswith("|")]

    return make


def test_all_methods_and_metrics_if_nothing_else_is_said(made):
    assert made("t.csv layer=conv1") == [
        "|  | Ins ↑ | Over-all ↑ |",
        "|---|---|---|",
        "| CAM | 30.0 [20.0, 40.0] | 60.0 [50.0, 70.0] |",
        "| CAM++ | 60.0 [60.0, 60.0] | 50.0 [50.0, 50.0] |",
        "| New | 80.0 [80.0, 80.0] |  |",
        "| Blind | 10.0 [10.0, 10.0] | 10.0 [10.0, 10.0] |",  # a method without a layer stands in every one
    ]


def test_differences_are_on_the_same_images(made):
    lines = made("t.csv layer=conv1 columns=ins minus=New rows=New,*")
    assert lines[2:] == [
        "| New | 80.0 [80.0, 80.0] |",
        "| CAM | +60.0 [+60.0, +60.0] |",
        "| CAM++ | +20.0 [+20.0, +20.0] |",
        "| Blind | +70.0 [+70.0, +70.0] |",
    ]
    assert len(made("t.csv layer=conv1 columns=ins minus=New")) == 2 + 3
    assert made("t.csv layer=conv1 columns=ins common=New")[2] == "| CAM | 20.0 [20.0, 20.0] |"


def test_methods_as_columns(made):
    spec = "t.csv intervals=no rows=conv1:ins,conv2:over_all columns=CAM,CAM++,Blind"
    old = "| | CAM | CAM++ | blind |\n|---|---|---|---|\n| insertion, conv1 | 1 | 2 | 3 |\n| the same, conv2 |\n"
    assert made(spec, old) == [
        "|  | CAM | CAM++ | Blind |",
        "|---|---|---|---|",
        "| insertion, conv1 | 30.0 | 60.0 | 10.0 |",
        "| the same, conv2 | 20.0 |  | 10.0 |",
    ]


def test_labels_of_another_method_or_layer_are_replaced(made):
    old = "| method | Ins |\n|---|---|\n| **CAM** (ours) | 1 |\n| CAM | 2 |\n"
    assert made("t.csv layer=conv1 columns=ins rows=CAM,CAM++", old)[2:] == [
        "| **CAM** (ours) | 30.0 [20.0, 40.0] |",
        "| CAM++ | 60.0 [60.0, 60.0] |",
    ]
    assert made("t.csv method=CAM columns=conv2:ins", "| | shallow, conv1 |\n")[0] == "|  | conv2, Ins ↑ |"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none.csv", r"the source of a table, .*none\.csv, does not exist"),
        ("t.csv layer=conv1 columns=epg", "'epg' is not a metric, layer or method of the table's files"),
        ("t.csv columns=ins", "the options of a table do not define the 'layer' of a cell"),
    ],
)
def test_invalid_comments(made, spec, message):
    with pytest.raises(UsageError, match=message):
        made(spec)


def test_medians_of_the_cost(tmp_path):
    rows = [
        ("net", "-", "floor, NCHW", "seconds", 0, 4.0),
        ("net", "-", "floor, channels last", "seconds", 0, 2.0),
        ("net", "deep", "Holistic-CAM", "seconds", 0, 3.0),
        ("net", "deep", "Holistic-CAM", "seconds", 1, 3.50001),
        ("net", "deep", "Holistic-CAM", "seconds", 2, 9.0),
        ("net", "deep", "Holistic-CAM", "bytes", 3, 12_300_000),
    ]
    lines = [
        f'{model},{layer},1,float32,"{name}",{measure},{n},{value}' for model, layer, name, measure, n, value in rows
    ]
    text = "\n".join(["model,layer,batch,precision,procedure,measure,round,value", *lines, ""])
    (tmp_path / "latency.csv").write_text(text)
    spec = "latency.csv rows=net:deep columns=floor,Holistic-CAM,SESS"
    old = f"<!-- table: {spec} -->\n| | floor | ours | SESS |\n|---|---|---|---|\n| Net, the deep layer |\n"
    assert rewrite_page(old, tmp_path).splitlines()[1:] == [
        "|  | floor | ours | SESS |",
        "|---|---|---|---|",
        "| Net, the deep layer | 2 | 3.5 |  |",
    ]
    memory = rewrite_page(f"<!-- table: {spec} measure=bytes -->\n", tmp_path)
    assert memory.splitlines()[-1] == "| net, deep |  | 12 |  |"
    whole = rewrite_page("<!-- cost: *.csv -->\nold\n<!-- end -->\n", tmp_path)
    assert "old" not in whole
    assert "**net, batch 1**" in whole
    assert "| Holistic-CAM / floor | 1.5 |" in whole
    assert rewrite_page(whole, tmp_path) == whole


def test_the_command_rewrites_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "t.csv").write_text(HEADER + ROWS + "\n")
    page = tmp_path / "README.md"
    page.write_text("<!-- table: t.csv layer=conv2 columns=ins -->\n")
    report.main(["--rewrite", str(page)])
    assert "| CAM | 90.0 [90.0, 90.0] |" in page.read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        report.main([])
    assert "name a TABLE.csv, or --rewrite FILE.md" in capsys.readouterr().err
