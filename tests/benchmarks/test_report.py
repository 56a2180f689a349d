"""Tables of means and differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report as command
from benchmarks.harness import report


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
    assert {layer: len(methods) for layer, methods in report._read_paper("resnet50").items()} == {
        "layer4": 12,
        "layer2": 12,
    }
    assert {layer: len(methods) for layer, methods in report._read_paper("vgg16").items()} == {
        "features.30": 8,
        "features.16": 8,
    }
    assert report._read_paper("resnet18") == {}
    for methods in (*report._read_paper("resnet50").values(), *report._read_paper("vgg16").values()):
        for row in methods.values():
            difference = float(row["ins"]) - float(row["del"])
            assert float(row["over_all"]) == pytest.approx(difference, abs=1.5)  # several are misprinted in the paper
