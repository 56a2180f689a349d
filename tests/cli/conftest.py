"""A photo and the weights of an untrained model, for the command line."""

from __future__ import annotations

import pytest

from tests.models.files import make_photo, make_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def photo(tmp_path):
    return make_photo(tmp_path)


@pytest.fixture(autouse=True)
def small_figures(monkeypatch):
    """Drawing large ones takes most of the time."""
    monkeypatch.setattr("holistic_cam_plugin.display.figure.DPI", 40)
