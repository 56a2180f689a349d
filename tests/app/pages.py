"""The explorer's page in a browser."""

from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.processes import PATIENCE

__all__ = ["Page"]


class Page:
    """The explorer, by what a person sees of it; `open` it."""

    def __init__(self, browser):
        self.browser = browser

    def until(self, condition):
        return WebDriverWait(self.browser, PATIENCE, 0.1).until(lambda _: condition())

    @classmethod
    def open(cls, browser, url):
        browser.get(url)
        page = cls(browser)
        page.until(lambda: len(page.all("#best .confidence-set")) == 5)
        return page

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def best(self):
        return [row.text.split("\n")[0] for row in self.all("#best .confidence-set")]

    def upload(self, path):
        self.one("#upload input[type=file]").send_keys(str(path))

    def choose(self, dropdown, name):
        """As a person types it into a list of several."""
        self.one(f"{dropdown} input").send_keys(name, Keys.ENTER, Keys.ESCAPE)
        self.until(lambda: name in self.chosen(dropdown))

    def clear(self, dropdown):
        self.one(f"{dropdown} .remove-all").click()
        self.until(lambda: not self.chosen(dropdown))

    def chosen(self, dropdown):
        return [token.text.strip() for token in self.all(f"{dropdown} .token")]

    def explain(self):
        self.until(self.one("#explain").is_enabled)
        self.one("#explain").click()

    def explained(self, *, maps):
        """Explain, and wait until there are so many pictures and maps."""
        self.explain()
        self.until(lambda: len(self.maps()) == maps and self.one("#arrays").is_enabled())

    def status(self):
        return self.one("#status").text

    def maps(self):
        return [image.get_attribute("src") for image in self.all("#table td img")]

    def tab(self, name):
        next(tab for tab in self.all("button[role=tab]") if tab.text == name).click()
