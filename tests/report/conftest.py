"""Fixtures: a report of six images with unusual names, and its page in the browser."""

from __future__ import annotations

import csv

import pytest

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK, make_picture
from tests.browser import errors
from tests.report.page_tools import NAMES, open_page


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """An output folder with a report: six images, two layers (the deep one first), two methods, and a failed image."""
    folder = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(NAMES):
        make_picture(folder / "in" / name, seed, (60, 30) if name == "wide.png" else (40, 30))
    (folder / "in" / "<b>bad.jpg").write_text("no picture")
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("file", "target"), *((name, i % 3) for i, name in enumerate((*NAMES, "<b>bad.jpg")))]
        )
    command = (
        "--root", str(folder / "in"), "--methods", "gradcam", "classholisticcam", "--layers", "layer4", "layer2",
        "--workers", "0",
    )  # fmt: skip
    assert main(["batch", str(folder / "list.csv"), "--output", str(folder / "out"), *QUICK, *command]) == 1
    assert main(["report", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def page(browser, reported):
    open_page(browser, reported / "report.html")
    yield browser
    assert errors(browser) == []
