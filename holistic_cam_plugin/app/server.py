"""Serves the page on this machine until an exception ends it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from starlette.middleware import Middleware

from holistic_cam_plugin.app.calls import Page
from holistic_cam_plugin.app.guard import LARGEST_UPLOAD, Guard
from holistic_cam_plugin.app.handlers import Handlers
from holistic_cam_plugin.app.page import build_page
from holistic_cam_plugin.app.snippet import Source
from holistic_cam_plugin.app.theme import CSS, SCRIPT, make_theme
from holistic_cam_plugin.errors import UsageError, describe_error

__all__ = ["LOCAL", "serve"]

LOCAL = "127.0.0.1"


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
        _launch(blocks, host, port, folder)
        started(blocks.local_url)
        threading.Event().wait()
    finally:
        handlers.closing.set()
        blocks.close(verbose=False)


def _launch(blocks: Page, host: str, port: int | None, folder: Path) -> None:
    guard = Middleware(Guard, host=host, folder=str(folder), check=blocks.check_call)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # the answer says what is malformed
    try:
        blocks.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, share=False, quiet=True, inbrowser=False,
            show_error=False, footer_links=[], run_history=False, max_file_size=LARGEST_UPLOAD, allowed_paths=[],
            ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, css_paths=[CSS],
            head=f"<script>{SCRIPT.read_text()}</script>", theme=make_theme(), app_kwargs={"middleware": [guard]},
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
