"""Several processes under torchrun: which one this is, and how they communicate.

The ranks share a key-value store; there are no collective operations. A thread of each rank writes a heartbeat to the
store every second. A process that waits for another one's message also checks that the other is alive: a slow rank may
take any time, a dead one is detected within a minute. If the store is gone, the first rank or the launcher is dead, and
the run ends.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from holistic_cam_plugin.batch import RESUME
from holistic_cam_plugin.errors import OutputError, UsageError, describe_error

__all__ = ["Ranks", "choose_rank_device", "join_ranks"]

BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.2
# Silence after which a rank counts as dead; before its first heartbeat it may still be starting.
SILENCE_SECONDS, START_SECONDS = 60, 300
CONNECT = timedelta(seconds=30)
# The store limits values to 8 MiB; the list of a large data set is longer.
PIECE = 2**22

_STORE_GONE = f"the first rank or the launcher has died: {RESUME}"

T = TypeVar("T")


class Ranks(NamedTuple):
    """This process among all ranks; a single process has no store."""

    rank: int = 0
    world: int = 1
    store: Store | None = None
    finished: threading.Event = threading.Event()  # set when the other ranks need nothing more from this one

    def broadcast(self, make: Callable[[], T]) -> T:
        """Call `make` in the first rank, and return its result in all ranks.

        Raises:
            UsageError: In the first rank, by `make`.
            SystemExit: With code 2 in the other ranks, if `make` raised: the first rank reports the error.
            OutputError: The first rank died meanwhile.
        """
        if self.store is None:
            return make()
        if self.rank > 0:
            pieces = _wait_for_value(self.store, "pieces", 0)
            if pieces is None:
                raise _dead_ranks_error([0])
            if pieces == b"0":
                self.gather({})
                raise SystemExit(2)
            value: T = pickle.loads(b"".join(self.store.get(f"piece/{number}") for number in range(int(pieces))))
            return value
        try:
            value = make()
        except UsageError:
            self.store.set("pieces", "0")
            self._collect_messages()  # the store may end with this rank: wait until all others have read it
            raise
        data = pickle.dumps(value)
        starts = range(0, len(data), PIECE)
        for number, start in enumerate(starts):
            self.store.set(f"piece/{number}", data[start : start + PIECE])  # type: ignore[arg-type]  # or bytes
        self.store.set("pieces", str(len(starts)))
        return value

    def gather(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a message when this rank's work is done; return those of all ranks in the first rank, else nothing.

        Raises:
            OutputError: In the first rank, after all living ranks are done, if others died.
        """
        if self.store is None:
            return [message]
        if self.rank > 0:
            self.finished.set()  # the store may end as soon as the message has arrived
            self.store.set(f"done/{self.rank}", json.dumps(message))
            return []
        messages = self._collect_messages()
        if None in messages:
            raise _dead_ranks_error([rank for rank, found in enumerate(messages, start=1) if found is None])
        return [message, *(json.loads(found) for found in messages if found is not None)]

    def _collect_messages(self) -> list[bytes | None]:
        """Wait for the message of every other rank; None for dead ranks."""
        assert self.store is not None
        return [_wait_for_value(self.store, f"done/{rank}", rank) for rank in range(1, self.world)]


@contextmanager
def join_ranks(device: torch.device, on_lost: Callable[[str], object]) -> Iterator[Ranks]:
    """Join the ranks started by torchrun, or by another launcher that sets its variables; without one, run alone.

    Args:
        device: The device of this rank.
        on_lost: Called by a thread with the reason if the store is gone, whatever the body is doing.

    Raises:
        UsageError: The store cannot be reached.
        OutputError: The store is gone, noticed by the body.
    """
    if not _is_launched():
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    world = _read_variable("WORLD_SIZE", 1, 2**20)
    rank = _read_variable("RANK", 0, world - 1)
    ranks = Ranks(rank, world, _connect(rank, world), threading.Event())
    heart = threading.Thread(target=_send_heartbeats, args=(ranks, on_lost), daemon=True)
    heart.start()
    try:
        yield ranks
    except DistError as error:
        raise OutputError(_STORE_GONE) from error
    finally:
        ranks.finished.set()
        heart.join(CONNECT.total_seconds())  # a thread inside PyTorch's C++ code can crash Python at exit


def choose_rank_device(name: str | None) -> str | None:
    """Return the device of this rank: with several GPUs per machine, each rank has its own.

    Raises:
        UsageError: This machine has more ranks than GPUs.
    """
    gpus = torch.cuda.device_count()
    if not _is_launched() or name not in (None, "cuda") or gpus == 0:
        return name
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= gpus:
        raise UsageError(
            f"no GPU for local rank {place}, this machine has {gpus}: start one rank per GPU, or set --device cpu"
        )
    return f"cuda:{place}"


def _is_launched() -> bool:
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def _read_variable(name: str, least: int, most: int) -> int:
    """Read a launcher's environment variable; raise UsageError if it is not in the range."""
    text = os.environ[name]
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
        raise UsageError(
            f"the environment variable {name} must be {least} to {most}, got {text!r}: start with torchrun, or unset "
            "RANK to run a single process"
        )
    return int(text)


def _connect(rank: int, world: int) -> Store:
    """Connect to the store of torchrun, or of the first rank."""
    host, port = os.environ["MASTER_ADDR"], _read_variable("MASTER_PORT", 1, 2**16 - 1)
    has_torchrun_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_server = rank == 0 and not has_torchrun_store
    try:
        if not is_server:
            _wait_for_server(host, port, may_be_starting=not has_torchrun_store)
        store = TCPStore(host, port, is_master=is_server, timeout=CONNECT, wait_for_workers=False)
    except (DistError, OSError) as error:
        raise UsageError(f"cannot connect the ranks at {host}:{port}: {describe_error(error)}") from error
    # torchrun keeps its store when it restarts the ranks.
    return PrefixStore(f"holistic-cam/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{world}", store)


def _wait_for_server(host: str, port: int, may_be_starting: bool) -> None:
    # TCPStore waits too, but blocks signals.
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT.total_seconds()).close()
            return
        except OSError as error:
            is_gone = isinstance(error, ConnectionRefusedError) and not may_be_starting
            if is_gone or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _send_heartbeats(ranks: Ranks, on_lost: Callable[[str], object]) -> None:
    assert ranks.store is not None
    try:
        while not ranks.finished.wait(BEAT_SECONDS):
            ranks.store.add(f"beats/{ranks.rank}", 1)
    except DistError:
        if not ranks.finished.is_set():
            on_lost(_STORE_GONE)


def _wait_for_value(store: Store, key: str, rank: int) -> bytes | None:
    """Wait for a value that the rank sets; return None if the rank is dead."""
    beats, since = 0, time.monotonic()
    # `Store.wait` would block signals and heartbeats.
    while not store.check([key]):
        now = store.add(f"beats/{rank}", 0)
        if now != beats:
            beats, since = now, time.monotonic()
        elif time.monotonic() - since > (SILENCE_SECONDS if beats else START_SECONDS):
            return None
        time.sleep(LOOK_SECONDS)
    value: bytes = store.get(key)
    return value


def _dead_ranks_error(ranks: Sequence[int]) -> OutputError:
    names = ", ".join(map(str, ranks))
    return OutputError(f"rank{'s' * (len(ranks) > 1)} {names} died or never started: {RESUME}")
