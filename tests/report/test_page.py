"""The report in a real browser: what is visible, filters, sorting."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from holistic_cam_plugin.__main__ import main
from tests.batch.batch_tools import QUICK, make_picture, rows
from tests.browser import errors, screen
from tests.processes import PATIENCE
from tests.report.page_tools import EVIL, NAMES, choose, files, one, open_page, several, visible_maps

pytestmark = [
    pytest.mark.campaign,  # in a browser
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]


def test_all_maps_are_seen_at_once_and_large(page):
    seen = visible_maps(page)
    maps = [image for image in seen if image[0] == "map"]
    assert (len(maps), len(seen)) == (24, 30)
    for kind, natural, width, height, visible in seen:
        assert visible
        assert natural == (224 if kind == "map" else 448)
        assert width >= 160
        assert height == pytest.approx(width, abs=1)
    assert [row.text for row in several(page, ".card:first-child tbody th")] == ["layer2", "layer4"]


def test_pictures_are_sharp_on_a_screen_of_two_pixels_for_one(page):
    screen(page, 1200, 900, density=2)
    assert page.execute_script("return devicePixelRatio") == 2
    for kind, natural, width, *_ in visible_maps(page):
        assert natural >= min(2 * width, 224 if kind == "map" else 448)  # a map has no more than the model's pixels
        assert kind == "map" or natural >= 2 * width


def test_an_overlay_looks_like_that_of_grad_cam(page, reported):
    with np.load(reported / "maps" / "a10.png.npz") as file:
        saliency_map = file["maps"][1, 1, 0].astype(np.float32)  # holistic, layer2
    card = one(page, "[data-file='a10.png']")
    button = card.find_element(By.CSS_SELECTOR, "td:nth-child(3) .map")
    visible_maps(page)
    # A busy browser computes the names later than it draws.
    WebDriverWait(page, PATIENCE).until(lambda _: button.accessible_name.endswith(", layer2, Class Holistic-CAM"))
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", button)
    shown = Image.open(io.BytesIO(button.screenshot_as_png)).convert("RGB")
    link = card.find_element(By.CSS_SELECTOR, ".subject img").get_attribute("src").rpartition("/")[2]
    with Image.open(reported / "report" / link) as picture:
        pixels = np.asarray(picture.resize((224, 224)), np.float32) / 255
    expected = Image.fromarray(show_cam_on_image(pixels, saliency_map, use_rgb=True)).resize(shown.size)
    difference = np.asarray(shown, float) - np.asarray(expected, float)
    assert min(difference.shape[:2]) >= 160
    # The corners are round, and pytorch-grad-cam scales the brightness so that the maximum is 255.
    assert np.abs(difference[8:-8, 8:-8]).mean() < 8


def test_filters_tell_what_is_left(page, reported):
    assert one(page, "#count").text == "6 of 6 images, 24 maps"
    assert one(page, "#count").aria_role == "status"  # read out when it changes
    choose(page, "layer", "layer4")
    assert one(page, "#count").text == "6 of 6 images, 12 maps"
    choose(page, "method", "Grad-CAM")
    assert one(page, "#count").text == "6 of 6 images, 6 maps"
    assert {image.get_attribute("alt").partition(", ")[2] for image in several(page, ".map img")} == {
        "layer4, Grad-CAM"
    }
    some = next(row["class"] for row in rows(reported) if row["file"] == "a10.png")
    choose(page, "class", some)
    expected = {row["file"] for row in rows(reported) if row["class"] == some}
    assert set(files(page)) == expected
    one(page, "[name=file]").send_keys("A1")
    assert files(page) == ["a10.png"]
    assert one(page, "#count").text == "1 of 6 images, 1 map"
    one(page, "[name=file]").send_keys("nothing")
    assert files(page) == []


def test_cards_sort_by_name_probability_and_seconds(page, reported):
    assert files(page)[1:3] == ["a9.png", "a10.png"]
    table = rows(reported)
    probability = {row["file"]: float(row["probability"]) for row in table}
    seconds = {name: {row["method"]: float(row["seconds"]) for row in table if row["file"] == name} for name in NAMES}
    choose(page, "order", "probability, highest first")
    assert [probability[name] for name in files(page)] == sorted(probability.values(), reverse=True)
    choose(page, "order", "time, fastest first")
    sums = [sum(seconds[name].values()) for name in files(page)]
    assert sums == pytest.approx(sorted(sums))
    choose(page, "method", "Grad-CAM")
    assert [seconds[name]["gradcam"] for name in files(page)] == sorted(of["gradcam"] for of in seconds.values())
    choose(page, "order", "name, Z to A")
    assert files(page)[0] == "z.png"


def test_names_are_text(page):
    assert page.title == "Maps in out"
    assert EVIL in files(page)
    shown = page.execute_script("return [...document.querySelectorAll('.subject h2')].map((h) => h.textContent)")
    assert set(shown) == set(NAMES)
    one(page, "a[href='#failed']").click()
    assert [cell.text for cell in several(page, "#failed td")] == [
        "<b>bad.jpg",
        "not an image in a supported format",
    ]


def test_a_foreign_script_does_not_run_and_nothing_is_fetched(browser, reported):
    open_page(browser, reported / "report.html")
    browser.set_window_position(0, 0)
    blocked = browser.execute_async_script("""
        const done = arguments[0], blocked = [];
        document.addEventListener("securitypolicyviolation", (event) => {
            blocked.push(event.effectiveDirective);
            if (blocked.length === 3) done(blocked.sort());
        });
        const script = document.body.appendChild(document.createElement("script"));
        script.textContent = "document.title = 'run'";
        document.body.appendChild(new Image()).src = "http://127.0.0.1:9/x.png";
        fetch("http://127.0.0.1:9/").catch(() => {});
    """)
    assert [directive.removesuffix("-elem") for directive in blocked] == ["connect-src", "img-src", "script-src"]
    assert browser.title == "Maps in out"


@pytest.mark.parametrize("width", [400, 700])
def test_a_narrow_window_needs_no_scrolling_sideways(page, width):
    screen(page, width, 850)
    wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.execute_script(wide)
    assert all(image[2] >= 120 and image[4] for image in visible_maps(page))
    one(page, ".map").click()
    assert not page.execute_script(wide)
    box = one(page, "#viewer").rect
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_controls_have_names_and_texts_contrast_in_light_and_dark(page):
    controls = several(page, "select, input, summary, a, .map")
    assert len(controls) == 5 + 2 + 1 + 24
    assert all(control.accessible_name for control in controls)
    inks = []
    for dark in (False, True):
        screen(page, 1200, 900, dark=dark)
        for selector in ("body", ".card h3", ".card h2", ".card small"):
            ink = one(page, selector).value_of_css_property("color")
            paper = one(page, ".card").value_of_css_property("background-color")
            assert contrast(ink, paper) >= 4.5, (selector, dark)  # WCAG 2.2, level AA
            inks.append(ink)
    assert not set(inks[:4]) & set(inks[4:])


def contrast(*colours):
    """Return WCAG's contrast ratio of two CSS colours."""
    lights = []
    for colour in colours:
        channels = np.array([float(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_many_methods_scroll_inside_their_card(browser, tmp_path):
    make_picture(tmp_path / "in" / "x.png")
    methods = ("gradcam", "gradcam++", "layercam", "xgradcam", "eigencam", "hirescam", "holisticcam")
    batch = ("batch", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *QUICK, "--workers", "0")
    assert main([*batch, "--methods", *methods]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    for width, least in ((1200, 160), (400, 120)):
        screen(browser, width, 900)
        open_page(browser, tmp_path / "out" / "report.html")
        seen = visible_maps(browser)
        assert len(seen) == 8
        assert all(image[2] >= least and image[4] for image in seen)
        assert not browser.execute_script("return document.documentElement.scrollWidth > innerWidth")
    choose(browser, "method", "Layer-CAM")
    assert one(browser, "#count").text == "1 of 1 image, 1 map"


def test_several_classes_of_an_image_and_no_picture(browser, tmp_path):
    make_picture(tmp_path / "in" / "x.png")
    command = ("--methods", "gradcam", "--target", "3", "5", "--workers", "0")
    assert main(["batch", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *QUICK, *command]) == 0
    shutil.rmtree(tmp_path / "in")
    assert main(["report", str(tmp_path / "out")]) == 0
    open_page(browser, tmp_path / "out" / "report.html")
    assert [name.split("\n")[0].split(" ")[:2] for name in (h.text for h in several(browser, "h3"))] == [
        ["digit", "3"],
        ["digit", "5"],
    ]
    assert not browser.find_elements(By.CSS_SELECTOR, "[name=layer], [name=method]")  # one of each: nothing to choose
    choose(browser, "class", "digit 5")
    assert one(browser, "#count").text == "1 of 1 image, 1 map"
    [button] = several(browser, ".map")
    button.click()
    assert one(browser, "#above").get_property("naturalWidth") == 224
    assert not one(browser, "#below").is_displayed()
    assert errors(browser) == []
