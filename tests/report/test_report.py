"""The files of a report and their content; `test_page.py` tests the page in a browser."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from contextlib import closing

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.record import Record, lock_folder
from holistic_cam_plugin.report.cards import sort_layers
from tests.batch.batch_tools import make_picture
from tests.report.report_tools import CLASSES, Page, make_output

EVIL = "a <b>&\"'</script><script>.jpg"
IMAGES = {
    EVIL: {"label": 0, "predicted": 0, "probability": 0.75, "label_probability": 0.75},
    "b/line\nend.jpg": {"label": 0, "predicted": 1},
    "c#1?x=%41.png": {"label": 2, "predicted": 1},
    "d.png": {"label": 0, "predicted": 1, "probability": 0.5, "label_probability": 0.25},
    "bad.jpg": {"reason": "not an image in a supported format"},
}


@pytest.fixture
def output(tmp_path):
    make_output(tmp_path / "out", IMAGES)
    return tmp_path / "out"


def pixels(page, link):
    """Return the pixels of a link, `(H, W, 3)`."""
    inside = link.startswith("data:")
    data = base64.b64decode(link.partition(",")[2]) if inside else (page.folder / link).read_bytes()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def links(page):
    return [*(image["url"] for image in page.images.values()), *(one["url"] for one in page.maps)]


def stored(page):
    return {f"pictures/{path.name}" for path in (page.folder / "pictures").iterdir()}


def test_the_page_holds_every_image_and_map_and_nothing_from_elsewhere(output, capsys):
    page = Page(output)
    assert str(output / "report" / "index.html") in capsys.readouterr().out
    assert set(page.images) == set(IMAGES) - {"bad.jpg"}
    assert page.layers == ["layer2", "layer10"]
    assert [(one["layer"], page.names[one["target"]]) for one in page.images["d.png"]["maps"]] == [
        ("layer2", "dog"), ("layer10", "dog"),
    ]  # fmt: skip
    assert set(links(page)) == stored(page)
    assert not re.search(r"https?:", page.text)
    assert "4 images explained, " in page.text


def test_each_image_has_its_label_and_its_prediction(output):
    image = Page(output).images["d.png"]
    assert {key: image[key] for key in ("label", "predicted", "probability", "label_probability")} == {
        "label": 0, "predicted": 1, "probability": 0.5, "label_probability": 0.25,
    }  # fmt: skip


def test_the_summary_tells_accuracy_confusions_classes_and_failures(output):
    page = Page(output)
    assert page.section("accuracy") == ["Accuracy", "25 %", "1 right", ",", "3 wrong"]
    assert page.section("confusions")[4:] == ["cat", "dog", "2", "&lt;i&gt;hen&lt;/i&gt;", "dog", "1"]
    assert 'href="#label=0&amp;predicted=1"' in page.text
    assert page.section("failed") == ["1 failed image", "not an image in a supported format", "1", "bad.jpg"]


def test_what_is_not_known_is_left_out(tmp_path):
    make_output(tmp_path / "out", {"a.png": {}, "b.png": {}})
    page = Page(tmp_path / "out")
    for identifier in ("accuracy", "confusions", "classes", "failed"):
        assert f'id="{identifier}"' not in page.text
    for image in page.images.values():
        assert (image["label"], image["object_share"], image["outline"], image["problem"]) == (None, None, "", "")
        assert {(one["precision"], one["inside"]) for one in image["maps"]} == {(None, None)}
    make_output(tmp_path / "some", {"a.png": {"label": 0}, "b.png": {}})
    assert Page(tmp_path / "some").section("accuracy") == ["Accuracy", "100 %", "1 right", ",", "0 wrong",
                                                           "; 1 without a label"]  # fmt: skip


def test_pictures_are_sharp_and_maps_have_the_default_colours(output):
    page = Page(output)
    image = page.images["d.png"]
    assert pixels(page, image["url"]).shape == (64, 64, 3)  # two pixels per pixel of the map
    with np.load(output / "maps" / "d.png.npz") as file:
        maps = file["maps"][0, :, 0]
    for one, saliency_map in zip(image["maps"], maps, strict=True):
        heat = cv2.applyColorMap(np.uint8(255 * saliency_map), cv2.COLORMAP_INFERNO)[:, :, ::-1]
        np.testing.assert_array_equal(pixels(page, one["url"]), heat)


@pytest.mark.parametrize("name", ["viridis", "cividis"])
def test_other_colours_and_their_legend(output, name):
    page = Page(output, "--colormap", name)
    code = getattr(cv2, f"COLORMAP_{name.upper()}")
    with np.load(output / "maps" / "d.png.npz") as file:
        heat = cv2.applyColorMap(np.uint8(255 * file["maps"][0, 0, 0]), code)[:, :, ::-1]
    np.testing.assert_array_equal(pixels(page, page.images["d.png"]["maps"][0]["url"]), heat)
    [legend] = re.findall(r'"(data:image/png[^"]*)" width="256"', page.text)
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], code)[:, :, ::-1]
    np.testing.assert_array_equal(pixels(page, legend), colours)


@pytest.mark.parametrize("source", ["--masks", "mask", "boxes"])
def test_precision_and_energy_are_those_of_the_object_in_the_crop(tmp_path, source):
    """32 of 40 px are kept: a picture of 80 x 40 px loses 24 px on the left and 4 px on top."""
    make_picture(tmp_path / "in" / "x.png", size=(80, 40))
    saliency_map = np.random.default_rng(5).random((1, 2, 1, 32, 32)).astype(np.float32)
    mask = np.zeros((40, 80), np.uint8)
    mask[10:20, 30:50] = 255
    folder = tmp_path / "masks" if source == "--masks" else tmp_path / "in" / "masks"
    folder.mkdir()
    Image.fromarray(mask).save(folder / "x.png")
    columns = {"--masks": {}, "mask": {"mask": "masks/x.png"}, "boxes": {"boxes": "[[30, 10, 50, 20]]"}}[source]
    make_output(tmp_path / "out", {"x.png": columns}, maps={"x.png": saliency_map})
    image = Page(tmp_path / "out", *([source, folder] if source == "--masks" else [])).images["x.png"]
    inside = mask[4:36, 24:56] > 0
    assert image["object_share"] == pytest.approx(inside.mean(), rel=1e-5)
    assert image["outline"] == "M6 6L6 15L25 15L25 6Z"
    for one, values in zip(image["maps"], saliency_map[0, :, 0], strict=True):
        assert one["inside"] == pytest.approx(values[inside].sum() / values.sum(), rel=1e-5)
        assert one["precision"] == pytest.approx(average_precision_score(inside.ravel(), values.ravel()), rel=1e-5)


def test_why_an_object_is_not_known(tmp_path):
    boxes = {"a.png": "[[0, 0, 2, 2]]", "b.png": "[[0, 0, 40, 40]]", "c.png": "none", "d.png": None}
    for name in boxes:
        make_picture(tmp_path / "in" / name, size=(40, 40))
    images = {name: {"boxes": text} for name, text in boxes.items()} | {"e.png": {"mask": "gone.png"}}
    make_output(tmp_path / "out", images)
    found = Page(tmp_path / "out").images
    assert [found[name]["problem"] for name in images] == [
        "no part of the object is in what the model sees of the image", "",
        "boxes must be [[left, top, right, bottom], ...], got none", "",
        "the mask gone.png does not exist",
    ]  # fmt: skip
    # An object that is everywhere: all energy is inside, and no order of the pixels is better than another one.
    assert [(one["precision"], one["inside"]) for one in found["b.png"]["maps"]] == [(None, 1)] * 2


def test_several_folders_on_one_page(tmp_path):
    """Shards of one input; the second one has failed where the first one has not."""
    make_output(tmp_path / "one", {"a.png": {"label": 0}, "b.png": {"label": 0, "predicted": 1}})
    make_output(tmp_path / "two", {"b.png": {"reason": "empty file"}, "c.png": {"label": 1, "predicted": 1}})
    make_output(tmp_path / "three", {"a.png": {"label": 2}}, root=tmp_path / "elsewhere")
    page = Page(tmp_path / "one", tmp_path / "two")
    assert (page.folder, list(page.images)) == (tmp_path / "one" / "report", ["a.png", "b.png", "c.png"])
    assert page.section("accuracy")[1] == "67 %"
    assert 'id="failed"' not in page.text
    assert all(links(page))
    again = Page(tmp_path / "two", tmp_path / "one", "--output", tmp_path / "new" / "page")
    assert list(again.images) == list(page.images)
    assert "3 images explained." in again.text
    assert "Maps in two, one" in again.text
    assert "4 images explained." in Page(tmp_path / "one", tmp_path / "two", tmp_path / "three").text


def test_folders_of_different_settings_are_not_mixed(tmp_path, capsys):
    make_output(tmp_path / "one", {"a.png": {}})
    make_output(tmp_path / "two", {"a.png": {}}, model="other", device="cuda")
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    assert "two and " in (said := capsys.readouterr().err)
    assert said.endswith("were made with different settings (model): make a report of each\n")


def test_the_same_report_again_changes_nothing_and_another_leaves_nothing_behind(output):
    page = Page(output)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (page.folder / "pictures").iterdir()}
    damaged = next(iter(before))
    damaged.write_bytes(b"damaged")
    assert Page(output).text == page.text
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (page.folder / "pictures").iterdir()}
    assert {path for path in before if after[path] != before[path]} == {damaged}
    assert after[damaged][0] == before[damaged][0]
    (page.folder / "pictures" / "mine.png").write_bytes(b"kept")
    page = Page(output, "--colormap", "magma", "--limit", "1")
    assert stored(page) == {*links(page), "pictures/mine.png"}
    assert not list(output.rglob(".part-*"))


def test_pictures_replace_links_and_pipes(output):
    page = Page(output)
    first, second = sorted(stored(page))[:2]
    kept = output / "kept.png"
    kept.write_bytes(b"kept")
    (page.folder / first).unlink()
    (page.folder / first).symlink_to(kept)
    (page.folder / second).unlink()
    os.mkfifo(page.folder / second)
    assert Page(output).text == page.text
    assert kept.read_bytes() == b"kept"
    assert (page.folder / first).is_file()
    assert (page.folder / second).is_file()


def test_one_file_with_everything_inside(output):
    page = Page(output, "--self-contained")
    assert [path.name for path in page.folder.iterdir() if not path.name.startswith(".")] == ["index.html"]
    assert all(link.startswith("data:image/") for link in links(page))
    beside = Page(output)
    for inside, outside in zip(links(page), links(beside), strict=True):
        np.testing.assert_array_equal(pixels(page, inside), pixels(beside, outside))


def test_a_limit_is_told_and_the_summary_is_of_all_images(output):
    page = Page(output, "--limit", "2")
    assert "The cards below show 2 of them, evenly spaced" in page.text
    assert list(page.images) == [EVIL, "c#1?x=%41.png"]
    assert page.section("accuracy")[1] == "25 %"


def test_images_that_have_moved_are_found_in_the_root(output, tmp_path):
    (tmp_path / "in").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.*"):
        os.utime(path)  # as if they had been copied
    page = Page(output)
    assert not any(image["url"] for image in page.images.values())
    assert all(one["url"] for one in page.maps)
    assert all(image["url"] for image in Page(output, "--root", tmp_path / "moved").images.values())


@pytest.mark.parametrize("change", ["size", "time", "shape"])
def test_an_image_that_has_been_replaced_is_not_shown_below_the_old_maps(tmp_path, change):
    root = tmp_path / "in"
    maps = np.random.default_rng(0).random((1, 2, 1, 40, 80))
    for name in ("x.bmp", "y.bmp"):
        make_picture(root / name, size=(40, 20))
    make_output(tmp_path / "out", {"x.bmp": {}, "y.bmp": {}}, maps={"x.bmp": maps, "y.bmp": maps}, crop=False)
    before = (root / "x.bmp").stat()
    make_picture(root / "x.bmp", 7, {"size": (60, 30), "time": (40, 20), "shape": (20, 40)}[change])
    assert ((root / "x.bmp").stat().st_size == before.st_size) == (change != "size")
    if change != "time":
        os.utime(root / "x.bmp", ns=(before.st_mtime_ns, before.st_mtime_ns))
    images = Page(tmp_path / "out").images
    assert [bool(images[name]["url"]) for name in ("x.bmp", "y.bmp")] == [False, True]


def test_maps_that_are_gone(output):
    (output / "maps" / "d.png.npz").write_bytes(b"damaged")
    (output / "maps" / f"{EVIL}.npz").unlink()
    page = Page(output)
    assert {name for name, image in page.images.items() if not any(one["url"] for one in image["maps"])} == {
        "d.png", EVIL,
    }  # fmt: skip
    assert all(image["url"] for image in page.images.values())
    assert (page.images["d.png"]["width"], page.images["d.png"]["height"]) == (32, 32)


def test_names_never_become_tags(output):
    text = Page(output).text
    assert EVIL not in text
    assert CLASSES[2] not in text
    assert text.count("</script>") == text.count("<script") == 2


def test_a_folder_whose_name_is_no_utf8(output, tmp_path):
    odd = tmp_path / os.fsdecode(b"maps \xff <b>")
    output.rename(odd)
    assert "<h1>Maps in maps \\udcff &lt;b&gt;</h1>" in Page(odd).text


def test_many_failures_are_counted_and_some_are_named(tmp_path):
    failed = {f"{number}.png": {"reason": "empty file"} for number in range(1234)}
    make_output(tmp_path / "out", {"x.png": {}} | failed)
    said = Page(tmp_path / "out").section("failed")
    assert said[:3] == ["1,234 failed images", "empty file", "1,234"]
    assert (len(said), said[-1]) == (3 + 100 + 1, "and 1,134 more: see errors.csv")


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
    (empty / "record.sqlite").write_bytes(b"no database" * 100)
    assert f"error: {empty / 'record.sqlite'} cannot be read: file is not a database" in said(empty)
    (empty / "record.sqlite").unlink()
    make_output(empty, {"bad.jpg": {"reason": "empty file"}}, root=tmp_path)
    assert "contains no maps yet: run holistic-cam batch first" in said(empty)
    make_output(tmp_path / "odd", {}, preprocessing=3)
    assert f"error: the record of {tmp_path / 'odd'} cannot be read: " in said(tmp_path / "odd")
    assert f"--root must be a folder, got {tmp_path / 'nowhere'}" in said(output, "--root", tmp_path / "nowhere")
    assert f"--masks must be a folder, got {tmp_path / 'nowhere'}" in said(output, "--masks", tmp_path / "nowhere")
    assert f"--masks {empty} has no mask of any image; it may be called {empty}/" in said(output, "--masks", empty)
    assert "invalid choice: 'rainbow'" in said(output, "--colormap", "rainbow")
    shutil.rmtree(output / "report", ignore_errors=True)
    (output / "report").write_text("a file")
    assert main(["report", str(output)]) == 3
    assert "cannot write to " in capsys.readouterr().err


@pytest.mark.parametrize("failing", ["page", "pictures"])
def test_on_a_full_disk_the_page_before_stays(output, monkeypatch, capsys, failing):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    page = Page(output)
    monkeypatch.setattr(f"holistic_cam_plugin.report.{failing}.write_whole", full)
    assert main(["report", str(output), "--colormap", "turbo"]) == 3
    assert "holistic-cam report: stopped: " in capsys.readouterr().err
    assert page.path.read_text(encoding="utf-8") == page.text
    assert all((page.folder / link).is_file() for link in links(page))


def test_two_reports_at_once_do_not_remove_one_anothers_pictures(output, capsys):
    page = Page(output)
    with closing(lock_folder(output / "report")):
        assert main(["report", str(output), "--colormap", "magma"]) == 2
    assert f"another run is using {output / 'report'}: wait until it ends, or choose another --output" in (
        capsys.readouterr().err
    )
    assert all((page.folder / link).is_file() for link in links(page))


def test_the_tables_are_written_too(output):
    Page(output)
    assert "bad.jpg,not an image in a supported format" in (output / "errors.csv").read_text()
    assert (output / "manifest.csv").read_text().count("layer10") == 4


def test_a_report_while_the_run_goes_on(output):
    with Record(output / "record.sqlite", write=True) as record:
        record.add({"file": "new.png", "state": "failed", "reason": "empty file"})
        assert '<a href="#failed">2 failed</a>' in Page(output).text
        record.add({"file": "newer.png", "state": "failed", "reason": "empty file"})
    assert '<a href="#failed">3 failed</a>' in Page(output).text
