"""A batch in this process, and a report of six images with awkward names, open in the browser."""

from __future__ import annotations

import csv

import pytest

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK, make_picture
from tests.batch.page_tools import NAMES
from tests.browser import errors


@pytest.fixture
def run(tmp_path, capsys):
    """Explain `tmp_path/in` into `tmp_path/output`; gives exit code, standard output and standard error."""

    def _run(*options, output=tmp_path / "output"):
        code = main(["batch", str(tmp_path / "in"), "--output", str(output), *QUICK, "--workers", "0", *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """Six images in two layers, the deep one named first, and two methods; and an image that failed."""
    folder = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(NAMES):
        make_picture(folder / "in" / name, seed, (60, 30) if name == "wide.png" else (40, 30))
    (folder / "in" / "<b>bad.jpg").write_text("no picture")
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("file", "target"), *((name, i % 3) for i, name in enumerate((*NAMES, "<b>bad.jpg")))]
        )
    command = (
        "--root",
        str(folder / "in"),
        "--methods",
        "gradcam",
        "holisticcampositive",
        "--layers",
        "layer4",
        "layer2",
        "--workers",
        "0",
    )
    assert main(["batch", str(folder / "list.csv"), "--output", str(folder / "out"), *QUICK, *command]) == 1
    assert main(["report", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def page(browser, reported):
    browser.get((reported / "report.html").as_uri())
    yield browser
    assert errors(browser) == []
