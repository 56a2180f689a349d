"""Fixtures: a report of six images with unusual names, and its page in the browser."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from holistic_cam_plugin.__main__ import main
from tests.browser import errors
from tests.report.page_tools import NAMES, open_page
from tests.report.report_tools import make_output

# Label, prediction, and the probabilities of both.
VERDICTS = ((0, 0, 0.5, 0.5), (0, 1, 0.1, 0.6), (0, 1, 0.2, 0.7), (1, 1, 0.9, 0.9), (2, 1, 0.3, 0.4), (2, 2, 0.8, 0.8))


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """An output folder with a report: six images, two layers, two methods, and a failed image.

    The object is the upper half of the first five images. The energy inside grows from one image to the next.
    """
    folder = tmp_path_factory.mktemp("page")
    images, maps = {"<b>bad.jpg": {"reason": "not an image in a supported format"}}, {}
    half = Image.fromarray(np.repeat(np.uint8([255, 0]), 15)[:, None].repeat(40, axis=1))
    (folder / "masks").mkdir()
    for number, (name, (label, predicted, *shares)) in enumerate(zip(NAMES, VERDICTS, strict=True)):
        images[name] = {
            "label": label, "predicted": predicted, "label_probability": shares[0], "probability": shares[1],
        }  # fmt: skip
        coarse = np.random.default_rng(0).random((2, 2, 1, 4, 4)).astype(np.float32)
        maps[name] = np.kron(coarse, np.ones((8, 8), np.float32))
        maps[name][..., :16, :] *= (number + 1) / 6
        if name != NAMES[-1]:
            (folder / "masks" / f"{name}.png").parent.mkdir(exist_ok=True, parents=True)
            half.save(folder / "masks" / f"{name}.png")
    make_output(folder / "out", images, maps=maps, methods=["gradcam", "classholisticcam"])
    assert main(["report", str(folder / "out"), "--masks", str(folder / "masks")]) == 0
    return folder / "out"


@pytest.fixture
def page(browser, reported):
    open_page(browser, reported / "report" / "index.html")
    yield browser
    assert errors(browser) == []
