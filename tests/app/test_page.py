"""The explorer in a real browser, as a person uses it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from holistic_cam_plugin.demo import make_scene
from tests.app.pages import Page
from tests.app.running import running
from tests.browser import errors

pytestmark = pytest.mark.campaign  # in a browser


@pytest.fixture
def scene(tmp_path):
    made = make_scene(5, "held-out", digits=2)
    path = tmp_path / "scene.png"
    Image.fromarray((255 * made.image.transpose(1, 2, 0)).astype(np.uint8)).save(path)
    return path, made.labels


def test_from_a_picture_to_its_arrays(page, scene, tmp_path):
    path, labels = scene
    before = page.one("#picture img").get_attribute("src")
    page.upload(path)
    page.until(lambda: page.one("#picture img").get_attribute("src") != before)
    page.until(lambda: page.best()[0] in {f"digit {label}" for label in labels})
    predicted = page.best()[0]
    page.until(lambda: page.chosen("#classes") == [predicted])

    other = f"digit {next(label for label in labels if f'digit {label}' != predicted)}"
    page.choose("#classes", other)
    page.explain()
    page.until(lambda: len(page.maps()) == 8 * 3)  # two classes in four layers: the picture and two methods
    page.until(page.one("#arrays").is_enabled)

    linear = page.maps()
    next(label for label in page.all("#scale label") if label.text == "sqrt").click()
    page.until(lambda: page.maps() != linear)
    assert page.maps()[::3] == linear[::3]  # the original images

    page.tab("Compare")
    page.until(lambda: len([image for image in page.all("#pair img") if image.is_displayed()]) == 2)
    assert page.one("#left input").get_attribute("value") == f"Grad-CAM, layer4, {other}"
    page.tab("Python")
    page.until(lambda: "HolisticCAM(" in page.one("#code").text)

    page.tab("Maps")
    downloads = tmp_path / "downloads"
    page.browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    page.one("#arrays").click()
    page.until((downloads / "holistic_cam.npz").is_file)
    arrays = np.load(downloads / "holistic_cam.npz")
    assert arrays["maps"].shape == (2, 4, 2, 224, 224)
    assert arrays["classes"].tolist() == [predicted, other]


def test_nothing_but_this_server_is_asked(page, app):
    page.explain()
    page.until(page.one("#arrays").is_enabled)
    asked = page.browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(asked) > 10
    assert [address for address in asked if not address.startswith((app.url, "data:", "blob:"))] == []
    assert errors(page.browser) == []


def test_the_border_between_two_maps_moves_by_mouse_and_keys(page):
    page.explained(maps=12)
    page.tab("Compare")
    page.until(lambda: page.all("#pair input"))
    clip = "return getComputedStyle(document.querySelector('#pair img + img')).clipPath"
    assert page.browser.execute_script(clip) == "inset(0px 0px 0px 50%)"
    page.one("#pair input").click()
    page.one("#pair input").send_keys(Keys.HOME)
    page.until(lambda: page.browser.execute_script(clip) == "inset(0px 0px 0px 0%)")


def test_a_run_can_be_stopped(page):
    page.clear("#methods")
    page.choose("#methods", "SESS")  # hundreds of passes
    page.explain()
    page.until(lambda: "SESS" in page.one("#status").text)
    page.until(page.one("#stop").is_enabled)  # on a busy machine a little later
    page.one("#stop").click()
    page.until(lambda: "Stopped after 0 of 1 columns" in page.one("#status").text)
    page.until(page.one("#explain").is_enabled)


def test_tabs_of_the_browser_do_not_mix(page, browser, app):
    page.explain()
    page.until(lambda: len(page.maps()) == 12)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        browser.get(app.url)
        page.until(lambda: len(page.all("#best .confidence-set")) == 5)
        assert page.maps() == []
        page.clear("#layers")
        page.choose("#layers", "layer4")
        page.explain()
        page.until(lambda: len(page.maps()) == 3)
    finally:
        browser.close()
        browser.switch_to.window(first)
    assert len(page.maps()) == 12
    page.tab("Python")
    page.until(lambda: "layer4" in page.one("#which input").get_attribute("value"))


@pytest.mark.campaign
def test_ctrl_c_ends_a_run_too(browser, tmp_path):
    with running(tmp_path, tmp_path, temporary=tmp_path) as app:
        page = Page.open(browser, app.url)
        page.clear("#methods")
        page.choose("#methods", "SESS")
        page.explain()
        page.until(lambda: "SESS" in page.one("#status").text)
        assert app.interrupted() == (130, "")
        assert not list(tmp_path.glob("holistic-cam-*"))
