"""Good files changed at random, from a seed, for so many seconds."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

__all__ = ["SECONDS", "mutants"]

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "8"))
AT_LEAST = 20  # on the slowest machine

# Where sizes, counts and offsets stand, these lead furthest.
EXTREMES = [
    number.to_bytes(width, order)
    for order in ("little", "big")
    for width in (2, 4, 8)
    for number in (0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1)
]


def mutants(data: bytes, seed: object, seconds: float) -> Iterator[bytes]:
    """Changes of a file for so long; half of them near its beginning, where a format's words are."""
    chance = random.Random(f"{seed}")
    end, made = time.monotonic() + seconds, 0
    while made < AT_LEAST or time.monotonic() < end:
        yield _changed(data, chance)
        made += 1


def _changed(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(min(len(data), 256) if chance.random() < 0.5 else len(data))
        length = chance.choice((1, 1, 2, 4, 16, 200))
        extreme = chance.choice(EXTREMES)
        data = (
            chance.choice(
                (
                    data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :],
                    data[:place] + chance.randbytes(length) + data[place + length :],
                    data[:place] + extreme + data[place + len(extreme) :],
                    data[:place] + data[place + length :],
                    data[:place] + data[place : place + length] * 2 + data[place + length :],
                    data[:place] if chance.random() < 0.3 else data,
                )
            )
            or b"\0"
        )
    return data
