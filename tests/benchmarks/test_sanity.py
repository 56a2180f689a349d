"""The sanity check finds a control that ignores the model."""

from __future__ import annotations

from benchmarks import sanity


def test_sanity_finds_a_control_that_ignores_the_model(common, rows, output, capsys):
    sanity.main([*common, "--methods", "Grad-CAM", "Gaussian", "--samples", "2"])
    found = rows("sanity")
    assert len(found) == 2 * 2 * 3 * 3  # images, kinds, modules with parameters, maps
    blind = [row for row in found if row["method"] == "Gaussian"]
    assert {(row["ssim"], row["spearman"]) for row in blind} == {("1", "1")}
    assert min(float(row["ssim"]) for row in found if row["method"] == "Grad-CAM") < 0.9
    assert "| method | 4 | 1.0 | 0.0 |" in capsys.readouterr().out
    assert len(list((output / "strips").glob("*.png"))) == 2 * 2 * 2


def test_rows_are_labelled_by_what_differs():
    known = {"layer": "a", "kind": "cascading", "method": "M", "randomized": "fc", "ssim": "0.5", "spearman": ""}
    rows = [known, known | {"ssim": "0.7", "spearman": "0.25"}, known | {"kind": "independent"}]
    assert sanity.similarity_table(rows).splitlines() == [
        "| kind | fc |",
        "|---|---|",
        "| cascading | 0.25 (0.60) |",
        "| independent | constant |",
    ]
