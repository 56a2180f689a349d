from __future__ import annotations

import pytest

from holistic_cam_plugin.demo import load_demo_image
from tests.app.pages import Page
from tests.app.running import running


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the explorer is started: with a picture that is nobody's business."""
    folder = tmp_path_factory.mktemp("started")
    load_demo_image().save(folder / "private.png")
    return folder


@pytest.fixture(scope="session")
def app(folder, tmp_path_factory):
    """The explorer, one for all tests."""
    with running(folder, tmp_path_factory.mktemp("said"), temporary=tmp_path_factory.mktemp("temporary")) as app:
        yield app


@pytest.fixture
def page(browser, app):
    """The explorer's page with the first example."""
    return Page.open(browser, app.url)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """What the command sets for Gradio ends with the test."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
