"""Which names of the server are taken, and which hosts are this machine."""

from __future__ import annotations

import socket

import pytest

from holistic_cam_plugin.app.addresses import is_local, names_server, same_origin


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_hosts_of_this_machine_alone(host):
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "nowhere.invalid"])
def test_other_hosts(host):
    assert not is_local(host)


@pytest.mark.parametrize(
    ("header", "listens", "reached"),
    [
        ("127.0.0.1:7860", "127.0.0.1", "127.0.0.1"),
        ("localhost:7860", "127.0.0.1", "127.0.0.1"),
        ("LOCALHOST:9000", "127.0.0.1", "127.0.0.1"),  # through a tunnel
        ("[::1]:7860", "::1", "::1"),
        ("192.0.2.1:7860", "0.0.0.0", "192.0.2.1"),
        ("192.0.2.1", "::", "::ffff:192.0.2.1"),
        ("gpu.example:7860", "gpu.example", "192.0.2.1"),
        (f"{socket.gethostname()}:7860", "0.0.0.0", "192.0.2.1"),
    ],
)
def test_names_of_the_server(header, listens, reached):
    assert names_server(header, listens, reached)


@pytest.mark.parametrize(
    "header", ["elsewhere.example", "192.0.2.2:7860", "127.0.0.1", "127.0.0.1.elsewhere.example:7860", "", "[::1", "@"]
)
def test_names_of_others(header):
    assert not names_server(header, "0.0.0.0", "192.0.2.1")


def test_origins():
    assert same_origin("http://127.0.0.1:7860", "127.0.0.1:7860")
    assert same_origin("https://GPU.example", "gpu.example")
    for origin in ("http://127.0.0.1:3000", "http://elsewhere.example", "null", "", "file://127.0.0.1:7860"):
        assert not same_origin(origin, "127.0.0.1:7860")
