"""Downloads that fail within seconds where there is no network."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["check_download", "find_hub", "is_reachable", "without_retries"]

_SECONDS = 3.0  # to connect
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def check_download(url: str) -> None:
    """Raise ConnectionError if torchvision's file of weights is neither in its cache nor its server reachable."""
    import torch

    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not cached.exists() and not is_reachable(url):
        raise ConnectionError(_describe(url))


@contextmanager
def without_retries(url: str) -> Iterator[None]:
    """Let the body use the cache of the Hugging Face Hub alone if the server cannot be reached.

    Its library would try again for a minute, even if the files are in the cache.

    Raises:
        ConnectionError: the server cannot be reached, and the body raised an Exception.
    """
    if is_reachable(url):
        yield
        return
    try:
        constants: Any = import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before, timeout, silenced = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout(), logging.root.manager.disable
    constants.HF_HUB_OFFLINE = True
    socket.setdefaulttimeout(_SECONDS)
    logging.disable(logging.CRITICAL)  # the error that is raised says it all
    try:
        yield
    except Exception as error:
        raise ConnectionError(_describe(url)) from error
    finally:
        constants.HF_HUB_OFFLINE = before
        socket.setdefaulttimeout(timeout)
        logging.disable(silenced)


def find_hub() -> str:
    """The address of the Hugging Face Hub, or of the mirror in `HF_ENDPOINT`."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def is_reachable(url: str) -> bool:
    """Whether the server, or the proxy in front of it, accepts a connection within three seconds."""
    address, reached = _find_address(url), []

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection(address, _SECONDS).close()
            reached.append(True)

    # A thread, because the look-up of a name has no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(reached)


def _find_address(url: str) -> tuple[str, int]:
    """The host and the port to connect to."""
    from urllib.request import getproxies, proxy_bypass  # takes time, and most commands need no network

    server = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(server.scheme) or proxies.get("all")
    if proxy and server.hostname and not proxy_bypass(server.hostname):
        server = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return server.hostname or "", server.port or _PORTS.get(server.scheme, 443)


def _describe(url: str) -> str:
    return f"{urlsplit(url).hostname} cannot be reached, and its files are not on this machine"
