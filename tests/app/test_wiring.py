"""The page and its server in this process: which handlers wait for the model, and that the server ends."""

from __future__ import annotations

import httpx
import pytest

from holistic_cam_plugin.app.handlers import Handlers
from holistic_cam_plugin.app.page import build_page
from holistic_cam_plugin.app.server import serve
from holistic_cam_plugin.app.snippet import Source
from tests.app.running import free_port
from tests.processes import PATIENCE

BUNDLED = Source(device="cpu")


def test_what_runs_the_model_waits_in_one_queue(tmp_path):
    functions = {f.name: f for f in build_page(Handlers(BUNDLED, tmp_path)).fns.values()}
    running = {"look", "look_at_example", "first_example", "change_texts", "explain"}
    assert running < functions.keys()
    for name, function in functions.items():
        assert (function.concurrency_id == "model") == (name in running), name
        assert function.api_visibility == "private" or name == "leave", name
    assert {functions[name].concurrency_limit for name in running} == {1}


def test_serving_ends_with_what_it_is_told(tmp_path):
    def started(url):
        assert httpx.get(url, timeout=PATIENCE).headers["content-security-policy"].startswith("default-src 'self'")
        raise KeyboardInterrupt

    port = free_port()
    with pytest.raises(KeyboardInterrupt):
        serve(BUNDLED, "127.0.0.1", port, tmp_path, started)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}", timeout=PATIENCE)
