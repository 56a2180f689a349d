from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """What the command sets for Gradio ends with the test."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
