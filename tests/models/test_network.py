"""Downloads without a network: no retries, and a line that says what to do."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models import network
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.network import check_download, find_hub, is_reachable, without_retries

URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def offline(monkeypatch):
    """No address can be connected to; returns those that were tried."""
    tried = []

    def fail(address, _timeout):
        tried.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", fail)
    return tried


def test_a_server_is_reachable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}/file")


def test_a_name_that_is_never_resolved_does_not_block(monkeypatch):
    monkeypatch.setattr(network, "_SECONDS", 0.01)
    monkeypatch.setattr(socket, "create_connection", lambda *_: network.threading.Event().wait())
    assert not is_reachable(URL)


def test_the_proxy_is_asked_in_place_of_the_server(offline, monkeypatch):
    assert not is_reachable(URL)
    monkeypatch.setenv("https_proxy", "http://proxy.local:3128")
    assert not is_reachable(URL)
    monkeypatch.setenv("no_proxy", "pytorch.org")
    assert not is_reachable(URL)
    own = ("download.pytorch.org", 443)
    assert offline == [own, ("proxy.local", 3128), own]


def test_files_in_the_cache_need_no_network(offline, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConnectionError, match=r"download.pytorch.org cannot be reached, and its files are not on this"):
        check_download(URL)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / Path(URL).name).touch()
    tried = len(offline)
    check_download(URL)
    assert len(offline) == tried


@pytest.mark.usefixtures("offline")
def test_the_hub_is_offline_inside_and_as_before_after(monkeypatch):
    constants = SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setattr(network, "import_module", lambda _: constants)
    before = (socket.getdefaulttimeout(), logging.root.manager.disable)
    with without_retries(URL):
        assert constants.HF_HUB_OFFLINE
    with pytest.raises(ConnectionError, match="cannot be reached"), without_retries(URL):
        raise RuntimeError("not in the cache")
    assert not constants.HF_HUB_OFFLINE
    assert (socket.getdefaulttimeout(), logging.root.manager.disable) == before


def test_with_a_network_errors_are_those_of_the_library(monkeypatch):
    monkeypatch.setattr(network, "is_reachable", lambda _: True)
    with pytest.raises(RuntimeError, match="of the library"), without_retries(URL):
        raise RuntimeError("of the library")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet18", "give a local state dict with --weights FILE"),
        ("timm/resnet18.a1_in1k", "give a local state dict with --weights FILE"),
        ("hf/google/vit-base-patch16-224", "use --model hf/./FOLDER"),
    ],
)
def test_without_a_network_a_line_says_what_to_do(monkeypatch, tmp_path, name, hint):
    if "/" in name:
        pytest.importorskip({"timm": "timm", "hf": "transformers"}[name.partition("/")[0]])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="cannot be reached, and its files are not on this machine") as refused:
        load_classifier(name, device="cpu")
    assert hint in str(refused.value)


def test_the_mirror_of_the_hub(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.local:8080")
    assert network._find_address(find_hub()) == ("mirror.local", 8080)
