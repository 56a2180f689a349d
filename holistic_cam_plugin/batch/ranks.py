"""Several processes under torchrun: what each is, and how the first one learns that the others are done.

Nothing but the beginning is collective. At the end every rank leaves word in the launcher's key-value store and goes;
the first one looks there as long as need be. No rank waits in a call that could run into a timeout.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from holistic_cam_plugin.errors import UsageError

__all__ = ["Ranks", "joined_ranks", "rank_device"]

# The first rank lists the files, loads the model and reads the manifest meanwhile.
BEGINNING = timedelta(hours=2)
LOOK_SECONDS = 0.2

T = TypeVar("T")


class Ranks(NamedTuple):
    """This process among all of them; one alone has no store."""

    rank: int = 0
    world: int = 1
    store: Store | None = None

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first rank, in all of them.

        Raises:
            UsageError: in the first rank, from `make`.
            SystemExit: then in the others, with code 2: the first one says why.
        """
        if self.world == 1:
            return make()
        if self.rank > 0:
            result: list[Any] = [None]
            distributed.broadcast_object_list(result)
            if result[0] is None:
                raise SystemExit(2)
            value: T = result[0]
            return value
        try:
            value = make()
        except UsageError:
            distributed.broadcast_object_list([None])
            raise
        distributed.broadcast_object_list([value])
        return value

    def gathered(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        """Called when this rank's work is done: in the first rank the words of all, in the others nothing."""
        if self.store is None:
            return [word]
        self.store.set(f"done/{self.rank}", json.dumps(word))
        if self.rank > 0:
            return []
        words = []
        for rank in range(self.world):
            # Not `wait`, which would keep signals waiting too.
            while not self.store.check([f"done/{rank}"]):
                time.sleep(LOOK_SECONDS)
            words.append(json.loads(self.store.get(f"done/{rank}")))
        return words


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The ranks that torchrun, or another launcher that sets its variables, started; else this process alone.

    Args:
        device: gloo connects the ranks of a CPU, nccl those of CUDA.
    """
    if not _launched():
        yield Ranks()
        return
    store, rank, world = next(rendezvous("env://", timeout=BEGINNING))
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if cuda else "gloo", store=store, rank=rank, world_size=world, timeout=BEGINNING
    )
    try:
        yield Ranks(rank, world, PrefixStore("holistic-cam", store))
    finally:
        distributed.destroy_process_group()


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
