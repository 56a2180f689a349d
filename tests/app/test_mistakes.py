"""Mistakes on the page are told, change nothing else, and the next run works."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from holistic_cam_plugin.demo import load_demo_image

pytestmark = pytest.mark.campaign  # in a browser


@pytest.fixture
def one_layer(page):
    """A page that computes two maps of one layer, which is quick."""
    page.clear("#layers")
    page.choose("#layers", "layer4")
    return page


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear all")
    return path


def told(page, message):
    """Wait for the message of a run, which also has ended."""
    page.until(lambda: message in page.status())
    page.until(page.one("#explain").is_enabled)
    assert not page.one("#stop").is_enabled()
    return True


def open_options(page):
    next(button for button in page.all("button") if button.text.startswith("Holistic-CAM:")).click()
    page.until(lambda: page.one("#pyramid").is_displayed())


def choose_pyramid(page, label):
    next(one for one in page.all("#pyramid label") if one.text == label).click()


@pytest.mark.parametrize(
    ("dropdown", "message", "good"),
    [
        ("#classes", "choose a class to explain", "digit 2"),
        ("#layers", "choose a layer", "layer4"),
        ("#methods", "choose a method", "Grad-CAM"),
    ],
)
def test_nothing_is_chosen(one_layer, dropdown, message, good):
    page = one_layer
    page.clear(dropdown)
    page.explain()
    assert told(page, f"Error: {message}")
    page.choose(dropdown, good)
    page.explained(maps=2 if dropdown == "#methods" else 3)
    assert " maps in " in page.status()


def test_sizes_that_are_none(one_layer):
    page = one_layer
    open_options(page)
    choose_pyramid(page, "sizes of my own")
    page.until(lambda: page.one("#sizes textarea, #sizes input").is_displayed())
    page.one("#sizes textarea, #sizes input").send_keys("224 x")
    page.explain()
    assert told(page, "Error: sizes must be at most 12 whole numbers")
    assert "got '224 x'" in page.status()
    page.one("#sizes textarea, #sizes input").send_keys(Keys.BACKSPACE, "300")
    page.explained(maps=3)
    assert "224 300 px" in page.one("#table").text


def test_only_what_counts_of_the_pyramid_is_shown(one_layer):
    page = one_layer
    open_options(page)
    assert not page.all("#scales, #sizes")
    choose_pyramid(page, "the paper's")
    page.until(lambda: page.all("#scales"))
    assert not page.all("#sizes")
    number = page.one("#scales input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("2", Keys.TAB)
    page.explained(maps=3)
    assert "2 scales" in page.one("#table").text


def test_a_number_of_scales_out_of_range(one_layer):
    page = one_layer
    open_options(page)
    choose_pyramid(page, "the paper's")
    page.until(lambda: page.all("#scales"))
    # The page's own input refuses it; another client's value does not reach the model either.
    page.browser.execute_script(
        "const input = document.querySelector('#scales input[type=number]');"
        "input.value = 99; input.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    page.explain()
    page.until(lambda: "Error: " in page.status() or " maps in " in page.status())
    page.until(page.one("#explain").is_enabled)
    number = page.one("#scales input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("1", Keys.TAB)
    page.explain()
    page.until(lambda: "1 scale" in page.one("#table").text and " maps in " in page.status())


def test_a_layer_that_does_not_exist(one_layer):
    page = one_layer
    page.one("#layers input").send_keys("layer9", Keys.ENTER, Keys.ESCAPE)
    page.explained(maps=3)
    assert page.chosen("#layers") == ["layer4"]
    assert "layer9" not in page.one("#table").text


def test_a_broken_file_after_a_picture(one_layer, broken, tmp_path):
    page = one_layer
    page.explained(maps=3)
    page.upload(broken)
    page.until(lambda: "the picture cannot be read as an image" in page.status())
    page.until(lambda: page.all(".toast-body") and page.one(".toast-body").text)
    assert "the picture cannot be read as an image" in page.one(".toast-body").text
    assert str(tmp_path) not in page.one("body").text
    assert (page.maps(), page.all("#picture img"), page.chosen("#classes")) == ([], [], [])
    page.explain()
    assert told(page, "Error: choose a picture first")
    assert page.maps() == []

    page.all("#examples button")[0].click()
    page.until(lambda: page.all("#picture img") and page.chosen("#classes") == ["digit 9"])
    page.until(lambda: page.status() == "")
    page.explained(maps=3)


def test_no_picture(one_layer, tmp_path):
    page = one_layer
    path = tmp_path / "scene.png"
    load_demo_image().save(path)
    page.upload(path)
    page.until(lambda: page.all("#upload button[aria-label*='emove'], #upload button[aria-label*='lear']"))
    page.one("#upload button[aria-label*='emove'], #upload button[aria-label*='lear']").click()
    page.until(lambda: not page.all("#picture img"))
    page.choose("#classes", "digit 9")
    page.explain()
    assert told(page, "Error: choose a picture first")
    page.upload(path)
    page.until(lambda: page.all("#picture img") and page.chosen("#classes") == ["digit 9"])
    page.explained(maps=3)


def test_another_picture_clears_all_of_the_last_one(one_layer):
    page = one_layer
    page.explained(maps=3)
    page.tab("Compare")
    page.until(lambda: page.all("#pair img"))
    page.tab("Python")
    page.until(lambda: "HolisticCAM(" in page.one("#code").text)
    page.all("#examples button")[1].click()
    page.until(lambda: "HolisticCAM(" not in page.one("#code").text)
    assert page.one("#which input").get_attribute("value") == ""
    page.tab("Compare")
    page.until(lambda: not page.all("#pair img"))
    assert page.one("#left input").get_attribute("value") == ""
    page.tab("Maps")
    assert page.maps() == []
    assert page.status() == ""
    assert not page.one("#figure").is_enabled()
    assert not page.one("#arrays").is_enabled()


def test_another_picture_while_the_last_one_is_explained(page):
    page.explain()
    page.all("#examples button")[1].click()
    page.until(lambda: "digit 4" in page.best()[:2] and page.maps() == [] and page.status() == "")
    page.until(page.one("#explain").is_enabled)
    page.explained(maps=12)
