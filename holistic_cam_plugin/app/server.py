"""Serves the page on this machine until an exception ends it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from holistic_cam_plugin.app.handlers import Handlers
from holistic_cam_plugin.app.page import CSS, build_page
from holistic_cam_plugin.app.snippet import Source
from holistic_cam_plugin.errors import UsageError, describe_error

__all__ = ["LOCAL", "serve"]

LOCAL = "127.0.0.1"

# A camera's pictures are at most this large.
_UPLOAD = "64mb"

# The browser loads nothing from other servers, whatever Gradio's page contains.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)

# The part of Gradio's interface that the page needs. The rest would fetch URLs, take videos, and more.
_PREFIX = "/gradio_api"
_NEEDED = re.compile(
    _PREFIX + r"/(queue/(join|data)|run/predict|upload|upload_progress|heartbeat/[^/]+|startup-events"
    r"|file=(?!https?:).*)",
    re.IGNORECASE,
)


class _Guard:
    """ASGI middleware: answers only what the page needs, and adds the policy to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        path = scope.get("path", "")
        refused = path.startswith(_PREFIX) and not _NEEDED.fullmatch(path)
        app = PlainTextResponse("not here", status_code=403) if refused else self._app
        await app(scope, receive, with_policy)


def serve(source: Source, host: str, port: int | None, folder: Path, started: Callable[[str], None]) -> None:
    """Serve the page until an exception ends it, such as that of a signal.

    Args:
        source: the classifier.
        host: the address to listen on.
        port: None for the first free one from 7860.
        folder: for uploads and downloads; the environment variable GRADIO_TEMP_DIR must name it.
        started: called with the page's URL.

    Raises:
        UsageError: the classifier cannot be loaded, or the address is not free.
    """
    _check_free(host, port)
    handlers = Handlers(source, folder)
    blocks = build_page(handlers).queue(api_open=False)
    try:
        _launch(blocks, host, port)
        started(blocks.local_url)
        threading.Event().wait()
    finally:
        handlers.closing.set()
        blocks.close(verbose=False)


def _launch(blocks: gr.Blocks, host: str, port: int | None) -> None:
    # Host names that another site could point at this machine are refused, unless the page is meant for others.
    hosts = [LOCAL, "localhost", host] if host in (LOCAL, "localhost", "::1") else ["*"]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_Guard)]
    try:
        blocks.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, share=False, quiet=True, inbrowser=False,
            show_error=False, footer_links=[], run_history=False, max_file_size=_UPLOAD, allowed_paths=[],
            ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, css_paths=[CSS],
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            app_kwargs={"middleware": middleware},
        )  # fmt: skip
    except OSError as error:
        raise UsageError(_describe_failure(host, port, error)) from error


def _check_free(host: str, port: int | None) -> None:
    """Raise UsageError if the address is not free, before the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        raise UsageError(_describe_failure(host, port, error)) from error


def _describe_failure(host: str, port: int | None, error: OSError) -> str:
    where = f"port {port} of {host}" if port else host
    # The error's own text repeats the address; that of an unknown host has a number below 0.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else describe_error(error)
    return f"cannot listen on {where}: {reason}; choose another --host or --port"
