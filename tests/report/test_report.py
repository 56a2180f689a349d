"""The files of a report and their content; `test_page.py` tests the page in a browser."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from PIL import Image

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.lock import lock_folder
from holistic_cam_plugin.report.cards import sort_layers
from tests.batch.batch_tools import QUICK, make_picture

NAMES = ("a <b>&\"'.jpg", "b/line\nend.jpg", "c#1?x=%41.png", "d.png")
pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(NAMES):
        make_picture(folder / "in" / name, seed)
    (folder / "in" / "bad.jpg").write_text("no picture")
    command = ("--methods", "gradcam", "holisticcam", "--target", "3", "5", "--workers", "0")
    assert main(["batch", str(folder / "in"), "--output", str(folder / "out"), *QUICK, *command]) == 1
    return folder / "out"


@pytest.fixture
def output(made, tmp_path):
    """A copy of an output folder, to write reports into."""
    return shutil.copytree(made, tmp_path / "out")


class Page(HTMLParser):
    def __init__(self, folder, *options):
        super().__init__()
        assert main(["report", str(folder), *options]) == 0
        self.folder, self.text = folder, (folder / "report.html").read_text(encoding="utf-8")
        self.files, self.pictures, self.maps, self.targets, self.links, self.said = [], [], [], [], [], []
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "article":
            self.files.append(attributes["data-file"])
            self.links += re.findall(r"url\('(.*?)'\)", attributes.get("style", ""))
        if tag == "section":
            self.targets.append((self.files[-1], attributes["data-class"]))
        if tag == "img" and attributes.get("alt", "").startswith("Map of "):
            self.maps.append(attributes["src"])
        if tag == "img" and attributes.get("alt", "").startswith("Image "):
            self.pictures.append(attributes["src"])
        self.links += [value for key, value in attributes.items() if key in ("src", "href")]

    def handle_data(self, data):
        self.said.append(data.strip())

    def image(self, link):
        """Return the pixels of a link, `(H, W, 3)`."""
        data = (
            base64.b64decode(link.partition(",")[2]) if link.startswith("data:") else (self.folder / link).read_bytes()
        )
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_page_holds_every_map_once_and_nothing_from_elsewhere(output, capsys):
    page = Page(output)
    assert str(output / "report.html") in capsys.readouterr().out
    assert page.files == list(NAMES)
    assert page.targets == [(name, digit) for name in NAMES for digit in ("digit 3", "digit 5")]
    assert (len(page.maps), len(page.pictures)) == (4 * 2 * 2, 4)
    beside = [link for link in page.links if not link.startswith(("data:image/png;", "#"))]
    assert {unquote(link) for link in beside} == {f"report/{path.name}" for path in (output / "report").glob("[!.]*")}
    assert not re.search(r"https?:", page.text)
    assert "4 images explained." in page.said
    assert page.said[page.said.index("bad.jpg") + 1] == "not an image in a supported format"


def test_pictures_are_sharp_and_maps_have_the_colours_of_grad_cam(output):
    page = Page(output)
    assert page.image(page.pictures[-1]).shape == (448, 448, 3)  # two pixels per pixel of the map
    of_d = page.maps[-4:]  # of digit 3: both methods, then of digit 5
    with np.load(output / "maps" / "d.png.npz") as file:
        maps = file["maps"].astype(np.float32)
    for link, (method, target) in zip(of_d, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        heat = cv2.applyColorMap(np.uint8(255 * maps[method, 0, target]), cv2.COLORMAP_JET)[:, :, ::-1]
        np.testing.assert_array_equal(page.image(link), heat)


@pytest.mark.parametrize("name", ["viridis", "cividis"])
def test_other_colours_and_their_legend(output, name):
    page = Page(output, "--colormap", name)
    code = getattr(cv2, f"COLORMAP_{name.upper()}")
    with np.load(output / "maps" / "d.png.npz") as file:
        heat = cv2.applyColorMap(np.uint8(255 * file["maps"][-1, 0, -1].astype(np.float32)), code)[:, :, ::-1]
    np.testing.assert_array_equal(page.image(page.maps[-1]), heat)
    [legend] = [link for link in page.links if link.startswith("data:image/png")]
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], code)[:, :, ::-1]
    np.testing.assert_array_equal(page.image(legend), colours)


def test_the_same_report_again_changes_nothing_and_another_leaves_nothing_behind(output):
    Page(output)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (output / "report").glob("[!.]*")}
    text = (output / "report.html").read_bytes()
    damaged = next(iter(before))
    damaged.write_bytes(b"damaged")
    Page(output)
    assert (output / "report.html").read_bytes() == text
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (output / "report").glob("[!.]*")}
    assert {path for path in before if after[path] != before[path]} == {damaged}
    assert after[damaged][0] == before[damaged][0]
    (output / "report" / "mine.png").write_bytes(b"kept")
    page = Page(output, "--colormap", "magma", "--limit", "1")
    assert (output / "report" / "mine.png").read_bytes() == b"kept"
    (output / "report" / "mine.png").unlink()
    assert {f"report/{path.name}" for path in (output / "report").glob("[!.]*")} == {*page.maps, *page.pictures}
    assert not list(output.glob(".part-*"))


def test_two_reports_at_once_do_not_remove_one_anothers_pictures(output, capsys):
    page = Page(output)
    with lock_folder(output / "report"):
        assert main(["report", str(output), "--colormap", "magma"]) == 2
    said = capsys.readouterr().err
    assert f"another run is using {output / 'report'} (process {os.getpid()} on " in said
    assert "): wait until it ends" in said
    assert all((output / link).is_file() for link in (*page.maps, *page.pictures))


def test_one_file_with_everything_inside(output, tmp_path):
    page = Page(output, "--self-contained")
    assert not (output / "report").exists()
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    beside = Page(output)
    for inside, outside in zip(page.maps + page.pictures, beside.maps + beside.pictures, strict=True):
        np.testing.assert_array_equal(page.image(inside), beside.image(outside))


def test_a_limit_is_told(output):
    page = Page(output, "--limit", "2")
    assert "This page shows 2 of them, evenly spaced" in page.text
    assert page.files == [NAMES[0], NAMES[2]]


def test_images_that_have_moved_are_found_in_the_root(output, made, tmp_path):
    (output / "parameters.json").write_text(
        (output / "parameters.json").read_text().replace(str(made.parent / "in"), "gone")
    )
    page = Page(output)
    assert not page.pictures
    assert page.text.count("This image is missing or has changed") == 4
    assert len(page.maps) == 4 * 2 * 2
    assert len(Page(output, "--root", str(made.parent / "in")).pictures) == 4


def test_an_image_that_has_been_replaced_is_not_shown_below_the_old_maps(made, tmp_path):
    shutil.copytree(made.parent / "in", tmp_path / "in")
    command = ("--methods", "gradcam", "--no-crop", "--workers", "0", "--target", "3")
    assert main(["batch", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *QUICK, *command]) == 1
    assert len(Page(tmp_path / "out").pictures) == 4
    make_picture(tmp_path / "in" / "d.png", size=(30, 40))
    assert len(Page(tmp_path / "out").pictures) == 3


def test_maps_that_are_gone(output):
    (output / "maps" / "d.png.npz").write_bytes(b"damaged")
    (output / "maps" / NAMES[0]).with_suffix(".jpg.npz").unlink()
    page = Page(output)
    assert len(page.maps) == 2 * 2 * 2
    assert page.text.count("is missing or damaged") == 2 * 2 * 2
    assert "The map of digit 5, layer4, Holistic-CAM is missing or damaged" in page.said
    assert len(page.pictures) == 4


def test_a_folder_whose_name_is_no_utf8(output, tmp_path):
    odd = tmp_path / os.fsdecode(b"maps \xff")
    output.rename(odd)
    assert "Maps in maps \\udcff" in Page(odd).said


def test_layers_go_from_shallow_to_deep():
    names = ["features.12.expand3x3", "features.3", "features.12", "features.12.squeeze", "conv1", "features.3"]
    assert sort_layers(names) == [
        "conv1", "features.3", "features.12", "features.12.expand3x3", "features.12.squeeze",
    ]  # fmt: skip


def test_what_can_not_be_reported(output, tmp_path, capsys):
    def said(*command):
        assert main(["report", *map(str, command)]) == 2
        return capsys.readouterr().err

    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"error: {empty} is not an output folder of holistic-cam batch" in said(empty)
    for odd in ("[]", "{}", "{"):
        (empty / "parameters.json").write_text(odd)
        assert f"error: {empty} is not an output folder of holistic-cam batch: parameters.json: " in said(empty)
    shutil.copy(output / "parameters.json", empty)
    assert "contains no maps yet: run holistic-cam batch first" in said(empty)
    assert f"--root must be a folder, got {tmp_path / 'nowhere'}" in said(output, "--root", tmp_path / "nowhere")
    assert "invalid choice: 'rainbow'" in said(output, "--colormap", "rainbow")


@pytest.mark.parametrize("failing", ["page", "pictures"])
def test_on_a_full_disk_the_page_before_stays(output, monkeypatch, capsys, failing):
    def full(*_):
        raise OSError(28, "No space left on device")

    page = Page(output)
    monkeypatch.setattr(f"holistic_cam_plugin.report.{failing}.write_whole", full)
    assert main(["report", str(output), "--colormap", "turbo"]) == 3
    assert "holistic-cam report: stopped: " in capsys.readouterr().err
    assert (output / "report.html").read_text(encoding="utf-8") == page.text
    assert all((output / link).is_file() for link in (*page.maps, *page.pictures))
