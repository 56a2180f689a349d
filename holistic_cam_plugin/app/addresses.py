"""Addresses of this machine: which of them a request may name, and which ones others can reach."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

__all__ = ["is_local", "names_server", "same_origin"]


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens on the host; False for a host that does not exist."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(_parse(str(address[0])).is_loopback for *_, address in found)


def names_server(header: str, listens: str, reached: str) -> bool:
    """Whether a `Host` header names the server. The name of another site may point here, too (DNS rebinding).

    Args:
        listens: the server's `--host`.
        reached: the address of this machine at which the request came in.
    """
    name = _split_host(header)
    if name in {"localhost", listens.lower(), socket.gethostname().lower()}:
        return True
    try:
        return _parse(name) == _parse(reached)
    except ValueError:
        return False


def same_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` header names the same server and port as the `Host` header."""
    scheme, _, rest = origin.lower().partition("://")
    return scheme in ("http", "https") and rest == host.lower()


def _split_host(header: str) -> str:
    """The lower-case name or address of a `Host` header without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found
