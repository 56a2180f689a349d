"""Targets by index: the conventions are captum's, so captum itself says what they mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from holistic_cam_plugin.passes.index_targets import index_targets

CLASSES = torch.arange(12.0).reshape(3, 4)
DENSE = torch.arange(3 * 4 * 5 * 6.0).reshape(3, 4, 5, 6)


def picked(target, outputs):
    return [target(row).item() for target, row in zip(index_targets(target, len(outputs)), outputs, strict=True)]


@pytest.mark.parametrize(
    ("target", "outputs"),
    [
        (2, CLASSES),
        (-1, CLASSES),
        ((2,), CLASSES),
        (torch.tensor(3), CLASSES),
        (torch.tensor([3]), CLASSES),
        ([3, 0, 1], CLASSES),
        (torch.tensor([3, 0, 1]), CLASSES),
        ([(3,), (0,), (1,)], CLASSES),
        ((2, 4, 1), DENSE),
        ([(2, 4, 1), (0, 0, 5), (3, -1, 0)], DENSE),
    ],
)
def test_captum_picks_the_same_entries(target, outputs):
    select_targets = pytest.importorskip("captum._utils.common")._select_targets
    assert picked(target, outputs) == select_targets(outputs, target).tolist()


def test_numpy_integers_are_integers_too():
    assert picked(np.array([3, 0, 1]), CLASSES) == [3, 4, 9]
    assert picked(np.int64(2), CLASSES) == [2, 6, 10]
    assert picked([np.int64(3), np.int8(0), 1], CLASSES) == [3, 4, 9]


def test_none_leaves_the_choice_to_the_model():
    assert index_targets(None, 3) is None


def test_entries_carry_gradients():
    outputs = CLASSES.clone().requires_grad_()
    sum(target(row) for target, row in zip(index_targets([3, 0, 1], 3), outputs, strict=True)).backward()
    assert outputs.grad.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        ([1, 2], ValueError, "got 2 targets for 3 images: pass one per image, or an integer for all"),
        ([], ValueError, "got 0 targets for 3 images"),
        (torch.tensor([1, 2]), ValueError, "got 2 targets for 3 images"),
        (torch.zeros(3, 1, dtype=torch.long), ValueError, r"a tensor of targets must be \(B,\), got shape \(3, 1\)"),
        (torch.zeros(3), TypeError, "a class index or a tuple of indices, got 0.0"),
        (torch.ones(3, dtype=torch.bool), TypeError, "a class index or a tuple of indices, got True"),
        (True, TypeError, "a class index or a tuple of indices, got True"),
        (1.0, TypeError, "a class index or a tuple of indices, got 1.0"),
        ([1, 2, "cat"], TypeError, "a class index or a tuple of indices, got 'cat'"),
        ((1, None), TypeError, r"a class index or a tuple of indices, got \(1, None\)"),
        ([len] * 3, TypeError, "a class index or a tuple of indices, got <built-in function len>"),
        ("cat", TypeError, "a class index or a tuple of indices, got 'cat'"),
        ((), TypeError, r"a class index or a tuple of indices, got \(\)"),
    ],
)
def test_other_targets_are_refused(target, error, match):
    with pytest.raises(error, match=match):
        index_targets(target, 3)


@pytest.mark.parametrize(
    ("index", "output", "match"),
    [
        (4, CLASSES[0], r"target \(4,\) is no entry of an output of shape \(4,\)"),
        (-5, CLASSES[0], r"target \(-5,\) is no entry"),
        (
            2,
            DENSE[0],
            r"target \(2,\) is no entry of an output of shape \(4, 5, 6\): pass a tuple of 3 indices",
        ),
        ((1, 0, 2), CLASSES[0], r"target \(1, 0, 2\) is no entry .* shape \(4,\): pass a class index, or a list"),
        ((2, 5, 0), DENSE[0], r"target \(2, 5, 0\) is no entry"),
    ],
)
def test_an_index_outside_of_the_output_is_refused(index, output, match):
    (target,) = index_targets(index, 1)
    with pytest.raises(ValueError, match=match):
        target(output)


def test_detections_have_no_entries():
    (target,) = index_targets(1, 1)
    with pytest.raises(TypeError, match=r"target \(1,\) needs a tensor, but the model returned a dict per image"):
        target({"boxes": CLASSES})
