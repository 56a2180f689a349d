"""Whether everybody can read and use the page: contrast, texts of pictures, names of controls."""

from __future__ import annotations

import time

import pytest

from tests.app.pages import Page
from tests.browser import screen

pytestmark = pytest.mark.campaign  # in a browser

# WCAG 2.2, 1.4.3: large text is of 24 px, or of 18.66 px and bold.
ENOUGH, ENOUGH_FOR_LARGE = 4.5, 3

# For every text and placeholder that is seen and whose control is not disabled: the text, its size and weight, its
# colour, and the layers behind it from the front to the back, as [red, green, blue, alpha].
_TEXTS = """
const parse = (text) => {
  const numbers = (text.match(/[\\d.]+%?/g) || []).map((n) => n.endsWith("%") ? parseFloat(n) / 100 : parseFloat(n));
  if (/^rgba?\\(/.test(text)) return numbers.length > 3 ? numbers : [...numbers, 1];
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  const pixel = canvas.getImageData(0, 0, 1, 1).data;
  return [pixel[0], pixel[1], pixel[2], pixel[3] / 255];
};
const found = [];
const add = (text, element, style) => {
  const box = element.getBoundingClientRect();
  if (!text.trim() || box.width < 2 || box.height < 2) return;
  if (element.closest("button:disabled, [aria-disabled=true], .sr-only, svg")) return;
  if (!element.checkVisibility({visibilityProperty: true})) return;
  let opacity = 1;
  const behind = [];
  for (let one = element; one; one = one.parentElement) {
    const of = getComputedStyle(one);
    opacity *= parseFloat(of.opacity);
    if (of.backgroundImage.includes("gradient")) found.push({text, gradient: of.backgroundImage});
    behind.push(parse(of.backgroundColor));
  }
  const colour = parse(style.color);
  colour[3] *= opacity;
  const size = parseFloat(style.fontSize);
  found.push({text: text.trim().slice(0, 60), size, weight: +style.fontWeight, colour, behind});
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (element.closest("script, style, noscript, option")) continue;
  add(walker.currentNode.textContent, element, getComputedStyle(element));
}
for (const input of document.querySelectorAll("input, textarea")) {
  if (["radio", "checkbox", "file", "range"].includes(input.type)) continue;
  if (input.value) add(input.value, input, getComputedStyle(input));
  else if (input.placeholder) add(input.placeholder, input, getComputedStyle(input, "::placeholder"));
}
return found;
"""


def blend(front, back):
    alpha = front[3]
    return [alpha * f + (1 - alpha) * b for f, b in zip(front[:3], back[:3], strict=True)]


def luminance(colour):
    """Relative luminance as WCAG defines it, of red, green and blue in [0, 255]."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(text):
    back = [255, 255, 255]
    for layer in reversed(text["behind"]):
        back = blend(layer, back)
    bright, dark = sorted((luminance(blend(text["colour"], back)), luminance(back)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def too_faint(page):
    """What is hard to read once nothing is loading or fading in, with its contrast."""
    page.until(lambda: not page.all(".pending:not(.maps *)"))
    before, now = None, _find_faint(page)
    while now and now != before:
        time.sleep(1)
        before, now = now, _find_faint(page)
    return now


def _find_faint(page):
    texts = page.browser.execute_script(_TEXTS)
    assert len(texts) > 20
    assert [text for text in texts if "gradient" in text] == []
    large = [text["size"] >= 24 or (text["size"] >= 18.66 and text["weight"] >= 700) for text in texts]
    return {
        text["text"]: round(contrast(text), 2)
        for text, is_large in zip(texts, large, strict=True)
        if contrast(text) < (ENOUGH_FOR_LARGE if is_large else ENOUGH)
    }


def names(page):
    """Role and name of each control and picture, as the browser tells a screen reader."""
    nodes = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "textbox", "combobox", "slider", "spinbutton", "checkbox", "radio", "tab", "link", "option"}
    told = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    return [(role, name) for role, name in told if role in roles]


def show_all(page):
    """Every part of the page, one after the other."""
    yield "before"
    next(button for button in page.all("button") if button.text.startswith("Holistic-CAM:")).click()
    page.until(lambda: page.one("#pyramid").is_displayed())
    for label in ("the paper's", "sizes of my own"):
        next(one for one in page.all("#pyramid label") if one.text == label).click()
        page.until(lambda: page.all("#scales" if label == "the paper's" else "#sizes"))  # noqa: B023
        yield label
    page.explain()
    page.until(lambda: "Error: " in page.status() and page.all(".toast-body"))
    yield "an error"
    page.until(lambda: not page.all(".toast-body"))
    next(one for one in page.all("#pyramid label") if one.text.startswith("fast")).click()
    page.explained(maps=12)
    yield "maps"
    page.tab("Compare")
    page.until(lambda: page.all("#pair img"))
    yield "two maps"
    page.tab("Python")
    page.until(lambda: "HolisticCAM(" in page.one("#code").text)
    yield "the script"


@pytest.mark.parametrize("dark", [False, True])
def test_all_texts_have_contrast(browser, app, dark):
    screen(browser, 1200, 900, dark=dark)
    page = Page.open(browser, app.url)
    assert {part: faint for part in show_all(page) if (faint := too_faint(page))} == {}


def test_all_controls_have_a_name_and_all_pictures_a_text(page):
    for part in show_all(page):
        assert [role for role, name in names(page) if not name.strip()] == [], part
        assert [image for image in page.all("img") if not image.get_attribute("alt")] == [], part
    assert ("button", "Remove digit 9") in names(page)
    assert ("slider", "Border between the left and the right map") not in names(page)  # its tab is closed


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(browser, app, width, dark):
    screen(browser, width, 900, dark=dark)
    page = Page.open(browser, app.url)
    page.explained(maps=12)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
