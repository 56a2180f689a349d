"""The report in a real browser: what is visible, filters, sorting, pages."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.display import overlay_map
from tests.browser import errors, screen
from tests.processes import PATIENCE
from tests.report.page_tools import EVIL, NAMES, choose, files, one, open_page, several, visible_maps
from tests.report.report_tools import make_output

pytestmark = pytest.mark.campaign  # in a browser


def words(page, selector):
    return [part.text for part in several(page, selector)]


def test_all_maps_are_seen_at_once_and_large(page):
    seen = visible_maps(page)
    maps = [image for image in seen if image[0] == "map"]
    assert (len(maps), len(seen)) == (24, 30)
    for kind, natural, width, height, visible in seen:
        assert visible
        assert natural == (32 if kind == "map" else 64)
        assert width >= 160
        assert height == pytest.approx(width, abs=1)
    assert words(page, ".card:first-child tbody th") == ["layer2", "layer10"]


def test_an_overlay_looks_like_that_of_grad_cam(page, reported):
    with np.load(reported / "maps" / "z.png.npz") as file:
        saliency_map = file["maps"][1, 1, 0]  # Class Holistic-CAM, layer10
    card = one(page, "[data-file='z.png']")
    button = card.find_element(By.CSS_SELECTOR, "tbody tr:nth-child(2) td:nth-child(3) .map")
    visible_maps(page)
    # A busy browser computes the names later than it draws.
    WebDriverWait(page, PATIENCE).until(lambda _: button.accessible_name.endswith(", layer10, Class Holistic-CAM"))
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", button)
    shown = Image.open(io.BytesIO(button.screenshot_as_png)).convert("RGB")
    link = card.find_element(By.CSS_SELECTOR, ".subject img").get_attribute("src").rpartition("/")[2]
    with Image.open(reported / "report" / "pictures" / link) as picture:
        pixels = np.asarray(picture.resize((32, 32)), np.float32) / 255
    expected = Image.fromarray(overlay_map(pixels, saliency_map)).resize(shown.size)
    difference = np.asarray(shown, float) - np.asarray(expected, float)
    assert min(difference.shape[:2]) >= 160
    # The corners are round, and pytorch-grad-cam scales the brightness so that the maximum is 255.
    assert np.abs(difference[8:-8, 8:-8]).mean() < 10


def test_a_card_tells_the_label_and_the_prediction(page):
    verdicts = {card.get_attribute("data-file"): card.find_element(By.CSS_SELECTOR, ".verdict").text.split("\n")
                for card in several(page, ".card")}  # fmt: skip
    assert verdicts["a9.png"] == ["✗ wrong", "predicted", "dog 60 %", "label", "cat 10 %", "object: 50 % of the image"]
    assert verdicts["a10.png"] == ["✓ right", "predicted and label", "cat 50 %", "object: 50 % of the image"]
    assert verdicts["x.png"][3:5] == ["label", "<i>hen</i> 30 %"]
    assert verdicts["z.png"] == ["✓ right", "predicted and label", "<i>hen</i> 80 %"]
    assert len(several(page, ".card:first-child .outline")) == 5  # of the image and of its maps


def test_filters_tell_what_is_left(page):
    assert one(page, "#count").text == "6 of 6 images, 24 maps, 50 % right"
    assert one(page, "#count").aria_role == "status"  # read out when it changes
    choose(page, "layer", "layer10 (6)")
    assert one(page, "#count").text == "6 of 6 images, 12 maps, 50 % right"
    choose(page, "method", "Grad-CAM (6)")
    assert one(page, "#count").text == "6 of 6 images, 6 maps, 50 % right"
    assert {image.get_attribute("alt").partition(", ")[2] for image in several(page, ".map img")} == {
        "layer10, Grad-CAM"
    }
    choose(page, "outcome", "wrong only")
    assert set(files(page)) == {"a9.png", EVIL, "x.png"}
    choose(page, "label", "cat (3)")
    assert set(files(page)) == {"a9.png", EVIL}
    one(page, "[name=file]").send_keys("A9")
    assert files(page) == ["a9.png"]
    assert one(page, "#count").text == "1 of 6 images, 1 map"
    one(page, "[name=file]").send_keys("nothing")
    assert files(page) == []
    one(page, "#reset").click()
    assert len(files(page)) == 6


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("name, A to Z", ["a9.png", "a10.png"]),
        ("name, Z to A", ["z.png", "x.png"]),
        ("probability of the label, lowest first", ["a9.png", EVIL]),
        ("probability of the label, highest first", [NAMES[3], "z.png"]),
        ("probability of the prediction, lowest first", ["x.png", "a10.png"]),
        ("energy inside, lowest first", ["a10.png", "a9.png", EVIL, NAMES[3], "x.png", "z.png"]),
        ("energy inside, highest first", ["x.png", NAMES[3], EVIL, "a9.png", "a10.png", "z.png"]),  # unknown: last
    ],
)
def test_orders(page, order, expected):
    choose(page, "order", order)
    shown = files(page)
    if order.startswith("name"):
        shown = [name for name in shown if name in expected]
    assert shown[: len(expected)] == expected


def test_cards_sort_by_coverage_of_the_maps_that_are_shown(page):
    data = json.loads(one(page, "#data").get_attribute("textContent"))
    place = data["map_columns"].index("coverage")
    maps = {row[0]: row[-1] for row in data["images"]}
    choose(page, "order", "coverage, highest first")
    means = [np.mean([row[place] for row in maps[name]]) for name in files(page)]
    assert means == sorted(means, reverse=True)
    choose(page, "layer", "layer10 (6)")
    choose(page, "method", "Grad-CAM (6)")
    shown = [next(row[place] for row in maps[name] if row[:2] == ["gradcam", "layer10"]) for name in files(page)]
    assert shown == sorted(shown, reverse=True)
    assert shown != means


def test_the_summary_links_to_its_images(page):
    assert words(page, "#confusions td") == ["cat", "dog", "2", "<i>hen</i>", "dog", "1"]
    one(page, "#confusions a").click()
    assert set(files(page)) == {"a9.png", EVIL}
    assert one(page, "[name=label]").get_property("value") == "0"
    page.back()
    assert len(files(page)) == 6
    one(page, "#accuracy a:last-of-type").click()
    assert set(files(page)) == {"a9.png", EVIL, "x.png"}
    several(page, "#classes a")[0].click()  # the lowest accuracy: 1 of 3
    assert set(files(page)) == {"a9.png", "a10.png", EVIL}


def test_right_for_the_wrong_reason(page):
    """Of the right ones, most of the energy of the first is outside; the object of the last one is not known."""
    assert one(page, "#inside a").text == "2 right for the wrong reason?"
    one(page, "#inside a").click()
    assert files(page) == ["a10.png", NAMES[3]]
    below = one(page, "[name=below]")
    below.clear()
    below.send_keys("20")
    assert files(page) == ["a10.png"]


def test_the_histogram_counts_the_maps_that_are_shown(page):
    def heights():
        bars = page.find_elements(By.CSS_SELECTOR, "#coverage rect")
        return np.array([float(bar.get_attribute("height")) for bar in bars])

    data = json.loads(one(page, "#data").get_attribute("textContent"))
    place = data["map_columns"].index("coverage")
    counts, _ = np.histogram([values[place] for row in data["images"] for values in row[-1]], bins=20, range=(0, 1))
    np.testing.assert_allclose(heights(), 58 * counts / counts.max(), atol=1e-3)
    assert one(page, "#coverage svg").accessible_name.startswith("Histogram: on average ")
    one(page, "[name=file]").send_keys("nothing")
    assert heights().sum() == 0


def test_the_address_keeps_the_choice(page, reported):
    choose(page, "order", "energy inside, highest first")
    choose(page, "outcome", "right only")
    shown, address = files(page), page.current_url.partition("#")[2]
    open_page(page, reported / "report" / "index.html", f"#{address}")
    assert files(page) == shown
    open_page(page, reported / "report" / "index.html", "#label=77&order=odd&page=x")
    assert len(files(page)) == 6


def test_names_are_text(page):
    assert page.title == "Maps in out"
    assert EVIL in files(page)
    shown = page.execute_script("return [...document.querySelectorAll('.subject h2')].map((h) => h.textContent)")
    assert set(shown) == set(NAMES)
    one(page, "a[href='#failed']").click()
    assert words(page, "#failed summary, #failed li") == ["not an image in a supported format 1", "<b>bad.jpg"]


def test_a_foreign_script_does_not_run_and_nothing_is_fetched(browser, reported):
    open_page(browser, reported / "report" / "index.html")
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
    page.execute_script("arguments[0].click()", one(page, ".map"))
    assert not page.execute_script(wide)
    box = one(page, "#viewer").rect
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_controls_have_names_and_texts_contrast_in_light_and_dark(page):
    controls = several(page, "select, input, summary, a, .map, [tabindex]")
    assert len(controls) >= 8 + 2 + 24
    assert all(control.accessible_name for control in controls)
    inks = []
    for dark in (False, True):
        screen(page, 1200, 900, dark=dark)
        for selector in (
            ".card h3", ".card h2", ".card small", ".panel p", ".panel td", ".panel a", ".verdict .right",
            ".verdict .wrong", ".target figcaption",
        ):  # fmt: skip
            part = one(page, selector)
            paper = part.value_of_css_property("background-color")
            if paper.endswith(", 0)"):
                paper = one(page, ".card").value_of_css_property("background-color")
            ink = part.value_of_css_property("color")
            assert contrast(ink, paper) >= 4.5, (selector, dark)  # WCAG 2.2, level AA
            inks.append(ink)
    assert not set(inks[:3]) & set(inks[9:12])


def contrast(*colours):
    """Return WCAG's contrast ratio of two CSS colours."""
    lights = []
    for colour in colours:
        channels = np.array([float(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_many_methods_scroll_inside_their_card(browser, tmp_path):
    methods = ["gradcam", "gradcamplusplus", "layercam", "xgradcam", "eigencam", "hirescam", "holisticcam"]
    maps = {"x.png": np.random.default_rng(0).random((7, 1, 1, 32, 32))}
    make_output(tmp_path / "out", {"x.png": {}}, maps=maps, methods=methods, layers=["layer4"])
    assert main(["report", str(tmp_path / "out")]) == 0
    for width, least in ((1200, 160), (400, 120)):
        screen(browser, width, 900)
        open_page(browser, tmp_path / "out" / "report" / "index.html")
        seen = visible_maps(browser)
        assert len(seen) == 8
        assert all(image[2] >= least and image[4] for image in seen)
        assert not browser.execute_script("return document.documentElement.scrollWidth > innerWidth")
    choose(browser, "method", "Layer-CAM (1)")
    assert one(browser, "#count").text == "1 of 1 image, 1 map"


def test_several_classes_of_an_image_and_no_picture(browser, tmp_path):
    maps = {"x.png": np.random.default_rng(0).random((1, 1, 2, 32, 32))}
    make_output(tmp_path / "out", {"x.png": {}}, maps=maps, layers=["layer4"])
    (tmp_path / "in" / "x.png").unlink()
    assert main(["report", str(tmp_path / "out")]) == 0
    open_page(browser, tmp_path / "out" / "report" / "index.html")
    assert words(browser, "h3") == ["cat 25 % score 1.5", "dog 25 % score 1.5"]
    # One of each, or not known: nothing to choose.
    assert [box.get_attribute("name") for box in several(browser, "form select")] == ["target", "order"]
    options = [option.text for option in one(browser, "[name=order]").find_elements(By.TAG_NAME, "option")]
    assert not [text for text in options if "label" in text or "inside" in text or "precision" in text]
    choose(browser, "target", "dog (1)")
    assert one(browser, "#count").text == "1 of 1 image, 1 map"
    [button] = several(browser, ".map")
    button.click()
    assert one(browser, "#above").get_property("naturalWidth") == 32
    assert not one(browser, "#below").is_displayed()
    assert errors(browser) == []


@pytest.fixture
def pages(browser, tmp_path):
    """A report of 60 images: three pages."""
    make_output(tmp_path / "out", {f"{number}.png": {} for number in range(60)})
    assert main(["report", str(tmp_path / "out")]) == 0
    open_page(browser, tmp_path / "out" / "report" / "index.html")
    yield browser
    assert errors(browser) == []


def test_a_page_at_a_time(pages):
    assert files(pages) == [f"{number}.png" for number in range(24)]
    assert one(pages, "#pager").accessible_name == "Pages"
    assert not one(pages, "#earlier").is_enabled()
    one(pages, "#later").send_keys(Keys.ENTER)
    assert files(pages) == [f"{number}.png" for number in range(24, 48)]
    number = one(pages, "#page")
    number.send_keys(Keys.BACKSPACE, "3", Keys.ENTER)
    assert files(pages) == [f"{number}.png" for number in range(48, 60)]
    assert not one(pages, "#later").is_enabled()
    pages.refresh()
    assert files(pages)[0] == "48.png"
    one(pages, "[name=file]").send_keys("59")
    assert files(pages) == ["59.png"]
    assert not one(pages, "#pager").is_displayed()


def test_the_viewer_goes_on_to_the_next_page(pages):
    pages.execute_script("arguments[0].click()", several(pages, ".map")[-1])
    viewer = one(pages, "#caption")
    assert viewer.text.startswith("23.png")
    one(pages, "#next").click()
    assert viewer.text.startswith("24.png")
    one(pages, "#back").click()
    assert viewer.text.startswith("23.png")
    one(pages, "#close").click()
    assert pages.switch_to.active_element.find_element(By.XPATH, "ancestor::article").get_attribute("data-file") == (
        "23.png"
    )
