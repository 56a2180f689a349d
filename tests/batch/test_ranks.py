"""What the ranks agree on and tell one another; torchrun itself runs in test_kill."""

from __future__ import annotations

import socket

import pytest
import torch
from torch.distributed import HashStore

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch import ranks as module
from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.ranks import Ranks, joined_ranks, rank_device
from holistic_cam_plugin.errors import UsageError
from tests.batch.batch_tools import QUICK, make_pictures, rows


@pytest.fixture
def launched(monkeypatch):
    """The variables of a launcher that started one rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 1,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }.items():
        monkeypatch.setenv(name, str(value))


def test_every_batch_belongs_to_one_rank(tmp_path):
    jobs = [Job(str(number)) for number in range(11)]
    plan = Plan(tmp_path, Inputs(tmp_path, jobs), "", 2, True, "float16", False, 0, {})
    for world in (1, 2, 3, 9):
        batches = [batch for rank in range(world) for batch in plan.batches(rank, world)]
        assert sorted(map(tuple, batches)) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10,)]


def test_one_process_alone():
    with joined_ranks(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1, None)
        assert ranks.from_first(lambda: 7) == 7
        assert ranks.gathered({"failed": 1}) == [{"failed": 1}]
    assert rank_device(None) is None


@pytest.mark.usefixtures("launched")
def test_a_launched_run(tmp_path, capsys):
    make_pictures(tmp_path / "in", 2)
    assert main(["batch", str(tmp_path / "in"), "--output", str(tmp_path / "output"), *QUICK]) == 0
    assert "2 images explained" in capsys.readouterr().out
    assert len(rows(tmp_path / "output")) == 2


def test_the_first_rank_waits_for_the_words_of_all(monkeypatch):
    store = HashStore()
    assert Ranks(1, 2, store).gathered({"failed": 1}) == []
    assert Ranks(0, 2, store).gathered({"failed": 0}) == [{"failed": 0}, {"failed": 1}]
    late = HashStore()
    monkeypatch.setattr(module.time, "sleep", lambda _: late.set("done/1", "{}"))
    assert Ranks(0, 2, late).gathered({}) == [{}, {}]


def test_what_the_first_rank_refuses_ends_all(monkeypatch):
    sent = []
    monkeypatch.setattr(module.distributed, "broadcast_object_list", lambda items: sent.append(list(items)))

    def refuse():
        raise UsageError("no such folder")

    with pytest.raises(UsageError, match="no such folder"):
        Ranks(0, 2, HashStore()).from_first(refuse)
    assert sent == [[None]]
    assert Ranks(0, 2, HashStore()).from_first(lambda: 7) == 7
    assert sent == [[None], [7]]
    receive = iter([None, 7])
    monkeypatch.setattr(module.distributed, "broadcast_object_list", lambda items: items.__setitem__(0, next(receive)))
    with pytest.raises(SystemExit) as stop:
        Ranks(1, 2, HashStore()).from_first(refuse)
    assert stop.value.code == 2
    assert Ranks(1, 2, HashStore()).from_first(refuse) == 7


@pytest.mark.usefixtures("launched")
def test_every_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank_device(None) == rank_device("cuda") == "cuda:1"
    assert rank_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="2 GPUs for rank 2 of it: start one rank a GPU, or --device cpu"):
        rank_device("cuda")


@pytest.mark.usefixtures("launched")
def test_nccl_connects_the_ranks_of_gpus(monkeypatch):
    calls = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.update(device=str(device)))
    monkeypatch.setattr(module.distributed, "init_process_group", lambda backend, **_: calls.update(backend=backend))
    monkeypatch.setattr(module.distributed, "destroy_process_group", lambda: calls.update(left=True))
    with joined_ranks(torch.device("cuda:0")):
        assert calls == {"device": "cuda:0", "backend": "nccl"}
    assert calls["left"]
