"""Several processes under torchrun: what each is, and how they hear of one another.

They share a key-value store and nothing else; nothing is collective. A thread of each rank says there every second that
the rank lives. Who waits for another one's word looks for that too: a slow rank has all the time it needs, a dead one
is not waited for. Where the store is gone, so is the first rank or the launcher, and the run ends.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from holistic_cam_plugin.batch.writing import OutputError
from holistic_cam_plugin.errors import UsageError

__all__ = ["Ranks", "joined_ranks", "rank_device"]

BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.2
# After so much silence a rank is dead; one that was never heard of may still be starting.
SILENCE_SECONDS, START_SECONDS = 60, 300
CONNECT = timedelta(seconds=30)
# The store takes values of up to 8 MiB; the list of a large data set is longer.
PIECE = 2**22

_GO_ON = "what is done is safe, and the same command goes on from there"
_GONE = f"the first rank, or what started the ranks, is dead: {_GO_ON}"

T = TypeVar("T")


class Ranks(NamedTuple):
    """This process among all of them; one alone has no store."""

    rank: int = 0
    world: int = 1
    store: Store | None = None
    left: threading.Event = threading.Event()  # set: this rank has said all that others wait for

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first rank, in all of them.

        Raises:
            UsageError: in the first rank, from `make`.
            SystemExit: then in the others, with code 2: the first one says why.
            OutputError: the first rank died meanwhile.
        """
        if self.store is None:
            return make()
        if self.rank > 0:
            pieces = _awaited(self.store, "pieces", 0)
            if pieces is None:
                raise _dead([0])
            if pieces == b"0":
                self.gathered({})
                raise SystemExit(2)
            value: T = pickle.loads(b"".join(self.store.get(f"piece/{number}") for number in range(int(pieces))))
            return value
        try:
            value = make()
        except UsageError:
            self.store.set("pieces", "0")
            self._heard()  # the store may end with this rank: all that live must have seen it
            raise
        data = pickle.dumps(value)
        starts = range(0, len(data), PIECE)
        for number, start in enumerate(starts):
            self.store.set(f"piece/{number}", data[start : start + PIECE])  # type: ignore[arg-type]  # or bytes
        self.store.set("pieces", str(len(starts)))
        return value

    def gathered(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        """Called when this rank's work is done: in the first rank the words of all, in the others nothing.

        Raises:
            OutputError: in the first rank, when all that live are done: others died.
        """
        if self.store is None:
            return [word]
        if self.rank > 0:
            self.left.set()  # the store may end as soon as the word is there
            self.store.set(f"done/{self.rank}", json.dumps(word))
            return []
        words = self._heard()
        if None in words:
            raise _dead([rank for rank, found in enumerate(words, start=1) if found is None])
        return [word, *(json.loads(found) for found in words if found is not None)]

    def _heard(self) -> list[bytes | None]:
        """The others' words, as soon as all are done; None from the dead."""
        assert self.store is not None
        return [_awaited(self.store, f"done/{rank}", rank) for rank in range(1, self.world)]


@contextmanager
def joined_ranks(device: torch.device, lost: Callable[[str], object]) -> Iterator[Ranks]:
    """The ranks that torchrun, or another launcher that sets its variables, started; else this process alone.

    Args:
        device: of this rank.
        lost: called in a thread with the reason when the store is gone, whatever the body does at that moment.

    Raises:
        UsageError: no such store.
        OutputError: the body found that the store is gone.
    """
    if not _launched():
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks = Ranks(rank, world, _store(rank, world), threading.Event())
    threading.Thread(target=_beat, args=(ranks, lost), daemon=True).start()
    try:
        yield ranks
    except DistError as error:
        raise OutputError(_GONE) from error
    finally:
        ranks.left.set()


def rank_device(name: str | None) -> str | None:
    """The device of this rank: with several GPUs on a machine each rank has its own.

    Raises:
        UsageError: more ranks on this machine than GPUs.
    """
    gpus = torch.cuda.device_count()
    if not _launched() or name not in (None, "cuda") or gpus == 0:
        return name
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= gpus:
        raise UsageError(f"this machine has {gpus} GPUs for rank {place} of it: start one rank a GPU, or --device cpu")
    return f"cuda:{place}"


def _launched() -> bool:
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def _store(rank: int, world: int) -> Store:
    """The store of torchrun, or the first rank's."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = rank == 0 and not of_torchrun
    try:
        if not serves:
            _wait_for_server(host, port, starting=not of_torchrun)
        store = TCPStore(host, port, is_master=serves, timeout=CONNECT, wait_for_workers=False)
    except (DistError, OSError) as error:
        raise UsageError(f"the ranks can't meet at {host}:{port}: {_first_line(error)}") from error
    # torchrun keeps its store when it starts the ranks again.
    return PrefixStore(f"holistic-cam/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{world}", store)


def _wait_for_server(host: str, port: int, starting: bool) -> None:
    # TCPStore waits as well, but without an ear for signals.
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT.total_seconds()).close()
            return
        except OSError as error:
            gone = isinstance(error, ConnectionRefusedError) and not starting
            if gone or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _beat(ranks: Ranks, lost: Callable[[str], object]) -> None:
    assert ranks.store is not None
    try:
        while not ranks.left.wait(BEAT_SECONDS):
            ranks.store.add(f"beats/{ranks.rank}", 1)
    except DistError:
        if not ranks.left.is_set():
            lost(_GONE)


def _awaited(store: Store, key: str, rank: int) -> bytes | None:
    """A value that the rank will set; None if the rank is dead."""
    beats, since = 0, time.monotonic()
    # Not `wait`, which would keep signals waiting, and the beats.
    while not store.check([key]):
        now = store.add(f"beats/{rank}", 0)
        if now != beats:
            beats, since = now, time.monotonic()
        elif time.monotonic() - since > (SILENCE_SECONDS if beats else START_SECONDS):
            return None
        time.sleep(LOOK_SECONDS)
    value: bytes = store.get(key)
    return value


def _dead(ranks: Sequence[int]) -> OutputError:
    names = ", ".join(map(str, ranks))
    which = f"rank {names} is" if len(ranks) == 1 else f"ranks {names} are"
    return OutputError(f"{which} dead or never began: {_GO_ON}")


def _first_line(error: Exception) -> str:
    """PyTorch adds where in C++ it was raised."""
    return str(error).partition("\n")[0]
