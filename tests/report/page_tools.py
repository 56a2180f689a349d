"""Helpers for the report in the browser, and the names of its images."""

from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.processes import PATIENCE

EVIL = "<script>document.title=1</script><img src=x onerror='document.title=2'>.png"
NAMES = ("a10.png", "a9.png", EVIL, "c#1?x=%41\nü.jpg", "x.png", "z.png")


def open_page(browser, path, address=""):
    """Open the report; on a busy machine the driver may return before the page is complete."""
    browser.get("about:blank")
    browser.get(path.as_uri() + address)
    complete = "return document.readyState === 'complete' && document.getElementById('count')?.value"
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.execute_script(complete))


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def several(page, selector):
    """Return the visible elements."""
    return [found for found in page.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]


def files(page):
    return [card.get_attribute("data-file") for card in several(page, ".card")]


def choose(page, name, text):
    Select(one(page, f"select[name={name}]")).select_by_visible_text(text)


def visible_maps(page):
    """Scroll to each map and image: its kind, natural width, shown size, and whether it is visible."""
    return page.execute_async_script("""
        const done = arguments[0], found = [];
        (async () => {
            for (const image of document.querySelectorAll(".map img, .subject img")) {
                image.scrollIntoView({ block: "center" });
                if (!image.complete) await new Promise((loaded) => image.addEventListener("load", loaded));
                await new Promise(requestAnimationFrame);
                const { x, y, width, height } = image.getBoundingClientRect();
                const top = document.elementFromPoint(x + width / 2, y + height / 2);
                const seen = image.checkVisibility({ checkOpacity: true, contentVisibilityAuto: true });
                const kind = image.matches(".map img") ? "map" : "picture";
                found.push([kind, image.naturalWidth, width, height, seen && image.parentElement.contains(top)]);
            }
            done(found);
        })();
    """)
