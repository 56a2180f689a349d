"""The benchmark of a report's opening, with a real page in a real browser."""

from __future__ import annotations

import pytest

from benchmarks import report_opening
from benchmarks.report_opening import COLUMNS, main, make_table, open_report
from holistic_cam_plugin.errors import UsageError


@pytest.mark.campaign
@pytest.mark.usefixtures("browser")  # or the reason why there is none
def test_a_round_is_measured_and_added_to_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report_opening, "EXPLAINED", 4)
    main(["--images", "30", "--rounds", "1", "--output", str(tmp_path)])
    lines = (tmp_path / "report_opening.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    for line, kind in zip(lines[1:], (report_opening.BESIDE, report_opening.INSIDE), strict=True):
        images, pictures, page_bytes, *seconds, read = line.split(",")
        assert (images, pictures) == ("30", kind)
        assert int(page_bytes) > 10_000
        # The maps in the window may be decoded before the page's last picture is loaded.
        assert min(map(float, seconds)) > 0
        assert 4 <= int(read) <= 24 * 5 + 1  # of the first page, with the legend
    assert "| 30 | beside the page | 0.1 | " in capsys.readouterr().out


def test_the_table_has_medians_and_ranges(tmp_path):
    path = tmp_path / "report_opening.csv"
    rows = [
        "10,inside,2000000,1,2,0.1,0.3,0.1,40",
        "10,inside,2000000,3,4,0.2,0.3,0.1,44",
        "10,inside,2000000,2,3,0.2,0.3,0.4,48",
    ]
    path.write_text("\n".join([",".join(COLUMNS), *rows, ""]))
    assert make_table(path).splitlines()[2:] == [
        "| 10 | inside | 2.0 | 2.00 [1.00, 3.00] | 3.00 [2.00, 4.00] | 0.20 [0.10, 0.20] | 0.30 [0.30, 0.30] | "
        "0.10 [0.10, 0.40] | 44 |"
    ]


def test_missing_browser(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UsageError, match="chromium or chromedriver is missing"):
        open_report(tmp_path / "report.html")
