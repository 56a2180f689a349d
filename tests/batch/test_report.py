"""The report: one page with everything inside, which a real browser sorts and filters."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK, make_picture, rows

NAMES = ("a <b>&\"'.jpg", "b/line\nend.jpg", "c.png", "d.png")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the low-pass wrap is zero")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(NAMES):
        make_picture(folder / "in" / name, seed)
    (folder / "in" / "bad.jpg").write_text("no picture")
    command = ("--methods", "gradcam", "holisticcam", "--target", "3", "5", "--workers", "0")
    assert main(["batch", str(folder / "in"), "--output", str(folder / "out"), *QUICK, *command]) == 1
    return folder / "out"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.links, self.cells = [], [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "tr" and "data-class" in attributes:
            self.rows.append(attributes)
        if tag == "img":
            self.images.append(attributes["src"])
        self.links += [value for key, value in attributes.items() if key in ("src", "href")]
        self._inside = tag if tag == "td" else None

    def handle_data(self, data):
        if self._inside == "td":
            self.cells.append(data)


def page(output, *options):
    assert main(["report", str(output), *options]) == 0
    return (output / "report.html").read_text(encoding="utf-8")


def picture(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(float)


def test_the_page_holds_every_map(output, capsys):
    text = page(output)
    assert str(output / "report.html") in capsys.readouterr().out
    parsed = Page(text)
    assert [(row["data-file"], row["data-class"]) for row in parsed.rows] == [
        (row["file"], row["class"]) for row in rows(output)
    ]
    assert len(parsed.rows) == 4 * 2 * 2
    assert all(link.startswith("data:image/jpeg;base64,") for link in parsed.links)
    assert not re.search(r"https?://", text)
    assert "4 images explained, 1 failed." in text
    assert "bad.jpg" in parsed.cells
    assert "no image in a format that is read here" in parsed.cells


def test_overlays_are_the_librarys(output):
    parsed = Page(page(output))
    with Image.open(output.parent / "in" / "c.png") as image:
        seen = image.resize((299, 224), Image.Resampling.BILINEAR).crop((37, 0, 261, 224))
    number = next(n for n, row in enumerate(rows(output)) if row["file"] == "c.png")
    with np.load(output / "maps" / "c.png.npz") as file:
        over = show_cam_on_image(
            np.asarray(seen, np.float32) / 255, file["maps"][0, 0, 0].astype(np.float32), use_rgb=True
        )
    for uri, expected in zip(parsed.images[2 * number : 2 * number + 2], (seen, Image.fromarray(over)), strict=True):
        assert np.abs(picture(uri) - np.asarray(expected.resize((160, 160)), float)).mean() < 8


def test_a_limit_is_told(output):
    parsed = Page(text := page(output, "--limit", "2"))
    assert "2 of them are shown, at equal distances" in text
    assert {row["data-file"] for row in parsed.rows} == {NAMES[0], NAMES[2]}


def test_images_and_maps_that_are_gone(output, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    (copy / "maps" / "c.png.npz").write_bytes(b"damaged")
    parsed = Page(text := page(copy, "--root", str(tmp_path)))
    assert "map of digit 3 in c.png: missing" in text
    assert np.abs(picture(parsed.images[0]) - 128).max() < 2
    assert len(parsed.images) == 2 * 4 * 3 + 4


def test_what_can_not_be_reported(output, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert f"error: {tmp_path} is no output folder of holistic-cam batch" in capsys.readouterr().err
    shutil.copy(output / "parameters.json", tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no map yet" in capsys.readouterr().err


def test_a_page_that_can_not_be_written(output, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("holistic_cam_plugin.cli.report.write_whole", full)
    assert main(["report", str(output)]) == 3
    assert "holistic-cam report: stopped: " in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_sorts_filters_and_shows_maps(output, tmp_path):
    """The page is driven from within: keys and clicks first, then what the document has become."""
    steps = """
    const q = (selector) => document.querySelector(selector), say = {};
    const rows = () => [...document.querySelectorAll("#rows tbody tr:not([hidden])")];
    const column = (n) => rows().map(row => row.cells[n].textContent);
    const heads = [...document.querySelectorAll("#rows th button")];
    const ordered = (values) => values.every((v, i) => i === 0 || Number(values[i - 1]) <= Number(v));
    heads.find(h => h.textContent === "score").click(); say.up = ordered(column(3));
    heads.find(h => h.textContent === "score").click(); say.down = ordered(column(3).reverse());
    say.state = heads.find(h => h.textContent === "score").parentElement.getAttribute("aria-sort");
    heads.find(h => h.textContent === "file").click(); say.first = column(1)[0];
    q("#class").value = "digit 5"; q("#class").dispatchEvent(new Event("change"));
    say.classes = [...new Set(column(2))]; say.shown = q("#shown").textContent;
    q("#search").value = "C.PNG"; q("#search").dispatchEvent(new Event("input")); say.found = column(1);
    const picture = q("#rows .picture"), map = picture.querySelector(".map");
    say.before = getComputedStyle(map).opacity; picture.click(); say.pressed = getComputedStyle(map).opacity;
    say.button = [picture.tagName, picture.tabIndex, picture.ariaLabel];
    document.title = JSON.stringify(say);
    """
    path = tmp_path / "driven.html"
    path.write_text(page(output).replace("</body>", f"<script>{{{steps}}}</script></body>"), encoding="utf-8")
    command = (
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
    )  # fmt: skip
    dom = subprocess.run((*command, path.as_uri()), capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search("<title>(.*?)</title>", dom, re.DOTALL).group(1)
    said = json.loads(html.unescape(title))
    assert said == {
        "up": True, "down": True, "state": "descending", "first": NAMES[0], "classes": ["digit 5"],
        "shown": "8 of 16 maps", "found": ["c.png", "c.png"], "before": "0", "pressed": "1",
        "button": ["BUTTON", 0, said["button"][2]],
    }  # fmt: skip
    assert said["button"][2].startswith("map of digit")
