"""Tables that survive a kill, and what is made of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import report as command
from benchmarks.harness import report
from benchmarks.harness.table_file import Row, TableFile, read_rows
from holistic_cam_plugin.errors import UsageError

ROOT = Path(__file__).parents[2]
COLUMNS = ("image", "value")
UNITS: list[list[Row]] = [
    [{"image": "a, b", "value": 1 / 3}, {"image": "a, b", "value": float("nan")}],
    [],
    [{"image": "c", "value": 1e-9}],
    [{"image": "d", "value": 2.0}],
]


def written(path: Path) -> bytes:
    """Append the units that the file does not hold yet."""
    with TableFile(path, COLUMNS, {"seed": 0}) as table:
        for unit in UNITS[table.units :]:
            table.append(unit)
    return path.read_bytes()


def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    assert written(path) == whole
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert written(path) == whole, length


def test_rows_of_a_torn_file_are_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    assert [row["value"] for row in read_rows(path)] == ["0.333333", "", "1e-09", "2"]
    path.write_bytes(whole[:-3])
    assert [row["image"] for row in read_rows(path)] == ["a, b", "a, b", "c"]
    with pytest.raises(UsageError, match="does not exist"):
        read_rows(tmp_path / "none.csv")


def test_other_parameters_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    whole = written(path)
    with pytest.raises(UsageError, match="other values of seed"):
        TableFile(path, COLUMNS, {"seed": 1})
    with pytest.raises(UsageError, match="other columns"):
        TableFile(path, ("image", "other"), {"seed": 0})
    assert path.read_bytes() == whole


def test_a_table_whose_parameters_are_unknown_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"image,value\n\nforeign,1\n\n")
    with pytest.raises(UsageError, match=r"t\.csv is there, but not t\.json, .* choose another --output"):
        written(path)
    assert path.read_bytes() == b"image,value\n\nforeign,1\n\n"
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_parameters_that_can_not_be_read_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UsageError, match=r"t\.json can't be read: .* Choose another --output"):
        written(tmp_path / "t.csv")
    assert (tmp_path / "t.json").read_text() == text


def test_parameters_without_a_table_are_those_of_a_run_that_was_killed_before_it_began(tmp_path: Path) -> None:
    whole = written(tmp_path / "t.csv")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(UsageError, match=r"other values of seed: delete it and t\.json to start anew"):
        TableFile(tmp_path / "t.csv", COLUMNS, {"seed": 1})
    assert written(tmp_path / "t.csv") == whole


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").rglob("*.csv")), ids=str)
def test_committed_tables_are_read_whole(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    if b"\n\n" in path.read_bytes():  # those that grew by units
        assert read_rows(path) == rows


def test_bootstrap_agrees_with_scipy_and_with_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    interval = report.bootstrap(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    half = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval[1:] == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert interval[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert report.bootstrap(values) == interval
    assert report.bootstrap([0.25]) == (0.25, 0.25, 0.25)


def test_report_has_intervals_differences_and_the_papers_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "image,layer,method,ins,del,over_all,road,road_halved,epg,epg_top100,tied\n\n"
    lines = [
        f"{image},layer4,{method},{0.5 + gain},,,,,{epg},,\n"
        for image, gain, epg in (("a", 0.1, 0.25), ("b", 0.2, 0.75))
        for method, gain in (("Grad-CAM", 0.0), ("Holistic-CAM", gain))
    ]
    (tmp_path / "t.csv").write_text(header + "".join(lines) + "a,-,Gaussian,0.1,,,,,0.5,,\n\n")
    command.main([str(tmp_path / "t.csv"), "--model", "resnet50"])
    printed = capsys.readouterr().out
    assert "| Grad-CAM | 50.0 [50.0, 50.0] (paper 54.887) | 50.0 [25.0, 75.0] (paper 53.673) |" in printed
    assert "| Holistic-CAM | 65.0 [60.0, 70.0] (paper 55.056)" in printed
    assert "| Grad-CAM | +15.0 [+10.0, +20.0] | +0.0 [+0.0, +0.0] |" in printed
    assert "| Gaussian | +50.0 [+50.0, +50.0] | -25.0 [-25.0, -25.0] |" in printed
    assert "images: ins 2, epg 2" in printed


def test_report_on_the_images_of_the_reference_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ("a", "CAM", 0.2, 0.5),
        ("b", "CAM", 0.4, 0.7),
        ("c", "CAM", 0.9, 0.9),
        ("b", "New", 0.6, ""),
        ("c", "New", 0.8, 0.1),
    ]
    lines = [f"{image},layer4,{method},,,{over_all},,,{epg},,\n" for image, method, over_all, epg in rows]
    header = "image,layer,method,ins,del,over_all,road,road_halved,epg,epg_top100,tied\n\n"
    (tmp_path / "t.csv").write_text(header + "".join(lines) + "\n")
    command.main([str(tmp_path / "t.csv"), "--reference", "New", "--common"])
    printed = capsys.readouterr().out
    assert "| CAM | 65.0 [40.0, 90.0] | 90.0 [90.0, 90.0] |" in printed  # b and c; c alone
    assert "images: over_all 2, epg 1" in printed


def test_the_papers_figures_are_all_there() -> None:
    assert {layer: len(methods) for layer, methods in report._paper("resnet50").items()} == {"layer4": 12, "layer2": 12}
    assert {layer: len(methods) for layer, methods in report._paper("vgg16").items()} == {
        "features.30": 8,
        "features.16": 8,
    }
    assert report._paper("resnet18") == {}
    for methods in (*report._paper("resnet50").values(), *report._paper("vgg16").values()):
        for row in methods.values():
            difference = float(row["ins"]) - float(row["del"])
            assert float(row["over_all"]) == pytest.approx(difference, abs=1.5)  # several are misprinted in the paper
