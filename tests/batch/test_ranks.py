"""Communication between ranks; torchrun itself runs in test_kill."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager

import pytest
import torch
from torch.distributed import DistError, HashStore

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch import ranks as module
from holistic_cam_plugin.batch.inputs import Inputs, Job
from holistic_cam_plugin.batch.plan import Plan
from holistic_cam_plugin.batch.ranks import Ranks, choose_rank_device, join_ranks
from holistic_cam_plugin.errors import OutputError, UsageError
from tests.batch.batch_tools import QUICK, find_free_port, make_pictures, make_rank_variables, rows

GONE = "the first rank or the launcher has died: finished maps are saved"


@pytest.fixture
def launched(monkeypatch):
    """Set the variables of a launcher that started `world` ranks; this is the first."""

    def launch(world=1):
        for name, value in make_rank_variables(0, world, find_free_port()).items():
            monkeypatch.setenv(name, value)

    return launch


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances only by `sleep`."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds
            self.at_every_look()

        def at_every_look(self):
            pass

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def member(rank, world, store):
    return Ranks(rank, world, store, threading.Event())


@contextmanager
def as_rank(rank):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", str(rank))
        yield


def test_every_batch_belongs_to_one_rank(tmp_path):
    jobs = [Job(str(number)) for number in range(11)]
    plan = Plan(tmp_path, Inputs(tmp_path, jobs), "", 2, True, "float16", False, 0, {})
    for world in (1, 2, 3, 9):
        batches = [batch for rank in range(world) for batch in plan.batches(rank, world)]
        assert sorted(map(tuple, batches)) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10,)]


def test_one_process_alone():
    with join_ranks(torch.device("cpu"), pytest.fail) as ranks:
        assert ranks == Ranks(0, 1, None)
        assert ranks.broadcast(lambda: 7) == 7
        assert ranks.gather({"failed": 1}) == [{"failed": 1}]
    assert choose_rank_device(None) is None


def test_a_launched_run(launched, tmp_path, capsys):
    launched()
    make_pictures(tmp_path / "in", 2)
    assert main(["batch", str(tmp_path / "in"), "--output", str(tmp_path / "output"), *QUICK]) == 0
    assert "2 images explained" in capsys.readouterr().out
    assert len(rows(tmp_path / "output")) == 2


def test_the_first_rank_waits_for_the_words_of_all(monkeypatch):
    store = HashStore()
    assert member(1, 2, store).gather({"failed": 1}) == []
    assert member(0, 2, store).gather({"failed": 0}) == [{"failed": 0}, {"failed": 1}]
    late = HashStore()
    monkeypatch.setattr(module.time, "sleep", lambda _: late.set("done/1", "{}"))
    assert member(0, 2, late).gather({}) == [{}, {}]


def test_a_slow_rank_is_waited_for_and_a_silent_one_is_not(clock):
    store = HashStore()
    beats = iter(range(1000))
    clock.at_every_look = lambda: next(beats, None) is not None and store.add("beats/2", 1)
    store.set("done/3", "{}")
    with pytest.raises(
        OutputError, match=r"^ranks 1, 2 died or never started: finished maps are saved; run the same command"
    ):
        member(0, 4, store).gather({})
    assert next(beats, None) is None  # it was waited for while it was alive
    assert 1000 * module.LOOK_SECONDS + module.SILENCE_SECONDS < clock.now < 1000


def test_the_first_rank_is_not_waited_for_either(clock):
    with pytest.raises(OutputError, match=r"^rank 0 died or never started"):
        member(1, 2, HashStore()).broadcast(int)
    assert module.START_SECONDS < clock.now < module.START_SECONDS + 1
    store = HashStore()
    store.add("beats/0", 7)
    with pytest.raises(OutputError, match=r"^rank 0 died"):
        member(1, 2, store).broadcast(int)
    assert clock.now < module.START_SECONDS + module.SILENCE_SECONDS + 2


def test_what_the_first_rank_refuses_ends_all():
    store = HashStore()

    def refuse():
        raise UsageError("no such folder")

    def follow():
        with pytest.raises(SystemExit) as stop:
            member(1, 2, store).broadcast(refuse)
        codes.append(stop.value.code)

    codes = []
    follower = threading.Thread(target=follow)
    follower.start()
    with pytest.raises(UsageError, match="no such folder"):
        member(0, 2, store).broadcast(refuse)
    assert store.check(["done/1"])  # the first rank waited until the other one knew
    follower.join()
    assert codes == [2]


def test_a_long_list_reaches_the_other_ranks(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 1000)
    store, names = HashStore(), [f"picture {number}.jpg" for number in range(500)]
    assert member(0, 2, store).broadcast(lambda: names) == names
    assert member(1, 2, store).broadcast(list) == names


def test_a_list_longer_than_a_value_of_the_store(launched):
    launched(world=2)
    names = ["x" * 2**20] * 20
    with join_ranks(torch.device("cpu"), pytest.fail) as ranks:
        assert ranks.broadcast(lambda: names) == names
        with as_rank(1), join_ranks(torch.device("cpu"), pytest.fail) as other:
            assert other.broadcast(list) == names


def test_the_store_of_torchrun_outlives_a_restart_and_its_words_do_not_count(launched, monkeypatch):
    launched(world=2)
    with join_ranks(torch.device("cpu"), pytest.fail) as first, as_rank(1):
        with join_ranks(torch.device("cpu"), pytest.fail) as second:
            second.gather({})
        assert first.store.check(["done/1"])
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        with join_ranks(torch.device("cpu"), pytest.fail) as again:
            assert not again.store.check(["done/1"])


def test_a_store_that_is_gone_ends_the_run(monkeypatch):
    class Gone(HashStore):
        def add(self, *_):
            raise DistError("Connection reset by peer\nframe #0: ...")

    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "_connect", lambda *_: Gone())
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "nowhere", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    said, lost = [], threading.Event()

    def told(reason):
        said.append(reason)
        lost.set()

    def run():
        with join_ranks(torch.device("cpu"), told) as ranks:
            assert lost.wait(60)  # called by a thread, while this one is working
            ranks.store.add("beats/1", 1)

    with pytest.raises(OutputError, match=f"^{GONE}"):
        run()
    assert len(said) == 1
    assert said[0].startswith(GONE)


def test_ranks_that_can_not_meet_say_so(launched, monkeypatch):
    launched(world=2)
    monkeypatch.setattr(module, "START_SECONDS", 0.1)
    nowhere = "^cannot connect the ranks at 127.0.0.1:"
    with as_rank(1), pytest.raises(UsageError, match=nowhere), join_ranks(torch.device("cpu"), pytest.fail):
        pass
    monkeypatch.setattr(module, "START_SECONDS", 300)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # torchrun has started before its ranks, and died
    with pytest.raises(UsageError, match=nowhere), join_ranks(torch.device("cpu"), pytest.fail):
        pass
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    with socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"]))):
        with pytest.raises(UsageError, match=nowhere) as error, join_ranks(torch.device("cpu"), pytest.fail):
            pass
        assert "\n" not in str(error.value)


def test_every_rank_has_a_gpu_of_its_own(launched, monkeypatch):
    launched()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_rank_device(None) == choose_rank_device("cuda") == "cuda:1"
    assert choose_rank_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="no GPU for local rank 2, this machine has 2: start one rank per GPU, or set"):
        choose_rank_device("cuda")


def test_a_gpu_is_the_default_of_its_rank(launched, monkeypatch):
    launched()
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with join_ranks(torch.device("cuda:1"), pytest.fail):
        assert chosen == [torch.device("cuda:1")]
