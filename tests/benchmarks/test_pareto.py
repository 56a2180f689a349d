"""Quality against time: settings are the class's, times and losses are of the same image."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import pareto
from benchmarks.harness.table_file import TableFile
from benchmarks.pareto import REFERENCE, Setting
from benchmarks.pareto_report import make_pareto_table, plot, read_gains
from benchmarks.report import rewrite_page
from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.errors import UsageError

FAST = "224 366 509"


@pytest.mark.parametrize(
    ("pyramid", "options"), [("1 scale", {"num_scales": 1}), (FAST, {"sizes": [32, 52, 72]}), (REFERENCE, {})]
)
def test_settings_are_the_classes(subject, pyramid, options):
    model, image, target = subject
    maps = Setting("positive", pyramid).cam(model, [model[0]], 32)(image, [target])
    expected = HolisticCAM(model, [model[0]], weighting="positive", **options)(image, [target])
    assert np.array_equal(maps, expected)


def test_the_command_compares_with_seven_scales(common, rows, capsys):
    pareto.main([*common, "--samples", "2", "--pyramids", "1 scale", FAST, REFERENCE, "--metrics", "ap"])
    found = rows("pareto")
    assert len(found) == 2 * 2 * 3
    assert all(float(row["seconds"]) > 0 for row in found)
    correlations = {
        name: [float(r["spearman"]) for r in found if r["method"].endswith(name)] for name in (FAST, REFERENCE)
    }
    assert correlations[REFERENCE] == pytest.approx([1.0] * 4)
    assert all(0 < value < 1 for value in correlations[FAST])
    assert f"positive: {REFERENCE} minus the other" in capsys.readouterr().out


def test_bfloat16_is_compared_with_float32(common, rows):
    pareto.main([*common, "--samples", "1", "--pyramids", FAST, "--metrics", "ap", "--amp"])
    found = {(row["layer"], row["method"]): row["spearman"] for row in rows("pareto")}
    assert {name for _, name in found} == {f"positive: {FAST}", f"positive: {FAST}, bfloat16"}
    assert found["0", f"positive: {FAST}"] == ""
    assert 0.9 < float(found["0", f"positive: {FAST}, bfloat16"]) < 1


def test_unknown_pyramids_are_named(common):
    with pytest.raises(UsageError, match="no pyramid '224 366'; did you mean 224 366 509"):
        pareto.main([*common, "--pyramids", "224 366"])


@pytest.fixture
def table(tmp_path):
    """A table of two images and two layers with known times and values."""
    path = tmp_path / "net" / "pareto.csv"
    path.parent.mkdir()
    columns = ("image", "layer", "method", "over_all", "ap", "iou", "seconds", "spearman")
    with TableFile(path, columns, {}) as table_file:
        for image, unit in (("a", 1.0), ("b", 2.0)):
            values = []
            for layer, lost in (("shallow", 0.0), ("deep", 0.2)):
                values.append((image, layer, "one", 0.5, 0.6 - lost, 0.5, unit, 0.9))
                values.append((image, layer, "three", 0.5, 0.6 - lost / 4, 0.5, 3 * unit * unit, 0.95))
                values.append((image, layer, "seven", 0.5, 0.6, 0.5, 20 * unit, 1.0))
                values.append((image, layer, "dear", 0.4, 0.5, 0.4, 30 * unit, ""))
            table_file.append([dict(zip(columns, row, strict=True)) for row in values])
    return path


def test_gains_are_those_of_the_same_image(table):
    found = read_gains([table], "one", "seven")
    assert found["one"].times == [1.0, 1.0]
    assert found["three"].times == [3.0, 6.0]
    assert found["three"].losses["ap"] == pytest.approx([0.025, 0.025])
    assert found["three"].values["ap"] == pytest.approx([0.575, 0.575])
    assert found["three"].worst == pytest.approx({"over_all": 0, "ap": 0.05, "iou": 0})
    assert found["one"].correlations == [0.9] * 4
    with pytest.raises(UsageError, match="the table of net has no unit or no reference for a"):
        read_gains([table], "none", "seven")


def test_the_table_is_in_the_order_of_time(table):
    text = make_pareto_table([table], "one", "seven").splitlines()
    assert [line.split(" | ")[0] for line in text[2:]] == ["| one", "| three", "| seven", "| dear"]
    assert text[3].startswith("| three | 4.5 [3.75, 5.25] | 50.0 | 57.5 | 50.0 |")
    assert "| +2.5 [+2.5, +2.5] |" in text[3]
    assert text[3].endswith("| +5.0 | 0.950 |")
    assert text[5].endswith("| +10.0 |  |")
    spec = '<!-- table: net/pareto.csv unit="one" reference="seven" -->\n'
    assert rewrite_page(spec, table.parents[1]) == spec + "\n".join(text) + "\n"


def test_the_plot_joins_what_nothing_quicker_beats_and_marks_the_knee(table):
    figure = plot(read_gains([table], "one", "seven"), knee="three")
    axes = figure.axes[1]
    joined, *points = axes.lines
    np.testing.assert_allclose(joined.get_xydata(), [[1, 50], [4.5, 57.5], [20, 60]])
    assert [point.get_color() for point in points] == ["tab:blue", "tab:red", "tab:blue", "tab:blue"]
