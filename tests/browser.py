"""A real browser for the tests of pages: the fixture `browser`, headless Chromium driven by selenium."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.processes import PATIENCE

__all__ = ["browser", "errors", "screen"]

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # no page reaches the network
)


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    """A selenium driver with an empty page, 1200 x 900 px, light."""
    screen(chromium, 1200, 900)
    chromium.get("about:blank")
    errors(chromium)  # those of the test before
    yield chromium
    chromium.get("about:blank")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    """One process for all the tests; they take it as `browser`, in a known state."""
    programs = [
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    ]
    if None in programs:
        pytest.skip("no Chromium with its chromedriver here: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = programs[0]
        for option in (*_OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = Chrome(options=options, service=ChromeService(programs[1], log_output=os.devnull))
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            yield driver
        finally:
            driver.quit()


def screen(browser: Chrome, width: int, height: int, *, density: float = 1, dark: bool = False) -> None:
    """Give the page a window of so many CSS pixels, on a screen with `density` pixels for each, light or dark."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def errors(browser: Chrome) -> list[str]:
    """What went wrong on the page since this was asked for last, in the browser's words."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
