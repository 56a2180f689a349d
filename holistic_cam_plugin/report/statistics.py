"""What a data set says about a model: accuracy, confused classes, and why images failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holistic_cam_plugin.report.results import Result

__all__ = ["ClassCount", "Confusion", "Summary", "summarize"]

# Pairs of classes in the summary.
WORST_PAIRS = 10


class Confusion(NamedTuple):
    """Images of one class for which the model predicts another one."""

    label: int
    predicted: int
    images: int


class ClassCount(NamedTuple):
    """Images of one class."""

    label: int
    images: int
    right: int


class Summary(NamedTuple):
    """Counts of all images.

    Attributes:
        labelled: number of explained images whose label is known.
        right: number of these for which the label is predicted.
        confusions: the most frequent wrong predictions, at most `WORST_PAIRS`.
        classes: by accuracy, lowest first.
        failures: the files of the failed images by reason, the most frequent reason first.
    """

    explained: int
    labelled: int
    right: int
    confusions: list[Confusion]
    classes: list[ClassCount]
    failures: list[tuple[str, list[str]]]


def summarize(explained: Sequence[Result], failed: Iterable[Result]) -> Summary:
    """Count images. Those without a label count for nothing but their number."""
    pairs = Counter((image.label, image.predicted) for image in explained)
    images, right = Counter[int](), Counter[int]()
    confused: list[Confusion] = []
    for (label, predicted), count in pairs.items():
        if label is None or predicted is None:
            continue
        images[label] += count
        if predicted == label:
            right[label] += count
        else:
            confused.append(Confusion(label, predicted, count))
    reasons: dict[str, list[str]] = {}
    for image in failed:
        reasons.setdefault(image.reason, []).append(image.file)
    return Summary(
        len(explained),
        images.total(),
        right.total(),
        sorted(confused, key=lambda pair: (-pair.images, pair))[:WORST_PAIRS],
        sorted(
            (ClassCount(label, count, right[label]) for label, count in images.items()),
            key=lambda row: (row.right / row.images, -row.images, row.label),
        ),
        sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])),
    )
