"""What a data set says about a model: accuracy, confused classes, and why images failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

__all__ = ["Summary", "summarize"]

# Pairs of classes in the summary.
WORST_PAIRS = 10


class Summary(NamedTuple):
    """Counts of all images.

    Attributes:
        labelled: number of explained images whose label is known.
        right: number of these for which the label is predicted.
        confusions: label, another prediction and number of images; at most `WORST_PAIRS`, the most frequent first.
        classes: label, right ones and number of images; the lowest accuracy first.
        failures: reason and files, the most frequent reason first.
    """

    explained: int
    labelled: int
    right: int
    confusions: list[tuple[int, int, int]]
    classes: list[tuple[int, int, int]]
    failures: list[tuple[str, list[str]]]


def summarize(explained: Sequence[Any], failed: Iterable[Any]) -> Summary:
    """Count rows of the record's table of images. Those without a label count for nothing but their number."""
    pairs = Counter((row["label"], row["predicted"]) for row in explained if row["label"] is not None)
    images, right = Counter[int](), Counter[int]()
    for (label, predicted), count in pairs.items():
        images[label] += count
        right[label] += count * (label == predicted)
    confusions = [(*pair, count) for pair, count in pairs.items() if pair[0] != pair[1]]
    classes = [(label, right[label], count) for label, count in images.items()]
    failures: dict[str, list[str]] = {}
    for row in failed:
        failures.setdefault(row["reason"], []).append(row["file"])
    return Summary(
        len(explained),
        images.total(),
        right.total(),
        sorted(confusions, key=lambda pair: (-pair[2], pair))[:WORST_PAIRS],
        sorted(classes, key=lambda row: (row[1] / row[2], -row[2], row)),
        sorted(failures.items(), key=lambda item: (-len(item[1]), item[0])),
    )
