"""The counts of a summary, against scikit-learn's."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from holistic_cam_plugin.report.statistics import summarize


def make_result(file, label=None, predicted=None, reason=""):
    return {"file": file, "label": label, "predicted": predicted, "reason": reason}


def test_counts_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 9, (2, 500)).tolist()
    predicted[:200] = labels[:200]
    known = [make_result(f"{n}", *pair) for n, pair in enumerate(zip(labels, predicted, strict=True))]
    summary = summarize([*known, make_result("unlabelled", None, 3)], [])
    assert (summary.explained, summary.labelled) == (501, 500)
    assert summary.right / summary.labelled == accuracy_score(labels, predicted)
    matrix = confusion_matrix(labels, predicted)
    np.fill_diagonal(matrix, 0)
    assert [images for *_, images in summary.confusions] == sorted(matrix.ravel(), reverse=True)[:10]
    assert all(matrix[label, predicted] == images for label, predicted, images in summary.confusions)
    recall = recall_score(labels, predicted, average=None)
    shares = [right / images for _, right, images in summary.classes]
    assert shares == sorted(recall)
    assert all(recall[label] == right / images for label, right, images in summary.classes)


def test_without_labels_nothing_is_said_about_them():
    summary = summarize([make_result("a", None, 3)], [])
    assert (summary.labelled, summary.right, summary.confusions, summary.classes) == (0, 0, [], [])


def test_failures_by_reason():
    failed = [make_result("a", reason="empty"), make_result("b", reason="broken"), make_result("c", reason="broken")]
    assert summarize([], failed).failures == [("broken", ["b", "c"]), ("empty", ["a"])]
