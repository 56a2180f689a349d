"""The report's viewer in a real browser: a single map, controlled by keys and mouse."""

from __future__ import annotations

import shutil

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from holistic_cam_plugin.__main__ import main
from tests.browser import errors
from tests.processes import PATIENCE
from tests.report.page_tools import choose, one, open_page, several, visible_maps

pytestmark = pytest.mark.campaign  # in a browser


def test_a_map_is_looked_at_by_keys_alone(page):
    one(page, "[name=order]").send_keys(Keys.TAB)
    keys = ActionChains(page)
    first = page.switch_to.active_element
    assert first.get_attribute("class") == "map"
    names = [button.accessible_name for button in page.find_elements(By.CSS_SELECTOR, ".map")]
    first.send_keys(Keys.ENTER)
    viewer = one(page, "#viewer")
    assert viewer.aria_role == "dialog"
    assert viewer.accessible_name == names[0]
    assert one(page, "#stage").size["width"] >= 600
    for key, place in ((Keys.ARROW_RIGHT, 1), (Keys.ARROW_DOWN, 3), (Keys.ARROW_LEFT, 2), (Keys.ARROW_UP, 0)):
        keys.send_keys(key).perform()
        assert viewer.accessible_name == names[place]
        assert one(page, "#above").get_attribute("alt") == names[place]
    assert not one(page, "#back").is_enabled()
    keys.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_RIGHT).perform()
    keys.send_keys(Keys.ESCAPE).perform()
    assert not viewer.is_displayed()
    # The browser first returns the focus to the map that was opened, then fires the close event.
    WebDriverWait(page, PATIENCE).until(lambda _: page.switch_to.active_element.accessible_name == names[1])


def test_an_overlay_fades_and_gives_way_to_map_or_picture(page):
    one(page, ".map").click()

    def seen():
        above = one(page, "#above")
        return float(above.value_of_css_property("opacity")) if above.is_displayed() else 0

    assert seen() == 0.5
    slider = one(page, "#opacity")
    assert slider.accessible_name == "opacity"
    name = one(page, "#viewer").accessible_name
    slider.send_keys(Keys.ARROW_RIGHT * 10)
    assert seen() == pytest.approx(0.6)
    assert one(page, "#viewer").accessible_name == name  # the arrow keys moved the slider
    for view, opacity in (("map", 1), ("picture", 0), ("overlay", 0.6)):
        button = one(page, f"#viewer button[data-view={view}]")
        button.click()
        assert seen() == pytest.approx(opacity)
        assert button.get_attribute("aria-pressed") == "true"
        assert slider.is_enabled() == (view == "overlay")
    one(page, "#next").click()
    assert seen() == pytest.approx(0.6)  # kept for the next map
    assert one(page, "#below").get_property("naturalWidth") == 64
    one(page, "#close").click()
    assert not one(page, "#viewer").is_displayed()


def test_only_maps_that_are_shown_are_stepped_through(page):
    choose(page, "layer", "layer2 (6)")
    choose(page, "method", "Grad-CAM (6)")
    several(page, ".map")[0].click()
    keys = ActionChains(page)
    keys.send_keys(*[Keys.ARROW_RIGHT] * 9).perform()
    assert not one(page, "#next").is_enabled()
    keys.send_keys(Keys.ESCAPE).perform()
    focused = "return document.activeElement.closest('.card')?.dataset.file"
    WebDriverWait(page, PATIENCE).until(lambda _: page.execute_script(focused) == "z.png")


def test_the_object_is_outlined(page):
    several(page, ".map")[0].click()
    assert one(page, "#stage .outline").rect == one(page, "#above").rect
    assert "energy inside the object" in one(page, "#caption").text
    one(page, "#close").click()
    page.execute_script("arguments[0].click()", one(page, "[data-file='z.png'] .map"))
    assert not several(page, "#stage .outline")


def test_one_file_goes_alone(browser, reported, tmp_path):
    copy = shutil.copytree(reported, tmp_path / "out")
    assert main(["report", str(copy), "--self-contained"]) == 0
    alone = shutil.move(copy / "report" / "index.html", tmp_path / "alone.html")
    shutil.rmtree(copy)
    open_page(browser, alone)
    seen = visible_maps(browser)
    assert [image[1] for image in seen if image[0] == "map"] == [32] * 24
    one(browser, ".map").click()
    assert one(browser, "#below").get_property("naturalWidth") == 64
    assert errors(browser) == []
