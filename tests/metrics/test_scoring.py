"""Scores of copies, in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin.metrics import class_probability, score_copies
from tests.metrics.recorder import Recorder

TARGET = ClassifierOutputTarget(0)


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (99, [5])])
def test_batches(batch_size, batches):
    model = Recorder()
    copies = [(TARGET, image) for image in torch.rand(5, 3, 4, 4)]
    scores = score_copies(model, copies, class_probability, batch_size)
    assert model.batches == batches
    expected = [float(image.mean(dim=(1, 2)).softmax(dim=0)[0]) for _, image in copies]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert model.modes == {(False, True)}


def test_copies_are_made_when_they_are_needed():
    model, made = Recorder(), []

    def copies():
        for number in range(6):
            made.append((number, len(model.batches)))
            yield TARGET, torch.zeros(3, 2, 2)

    score_copies(model, copies(), class_probability, 2)
    assert made == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]


def test_other_heads():
    class Segmenter(nn.Module):
        def forward(self, images):
            return images

    copies = [(TARGET, torch.ones(3, 4, 4))]
    with pytest.raises(ValueError, match=r"class probabilities need outputs of shape \(B, classes\).*score="):
        score_copies(Segmenter(), copies, class_probability, 1)
    with pytest.raises(ValueError, match=r"must return one value per image, as a tensor, got shape \(3, 4\)"):
        score_copies(Segmenter(), copies, torch.sigmoid, 1)
    with pytest.raises(ValueError, match=r"got 0\.5"):
        score_copies(Segmenter(), [(lambda row: 0.5, torch.ones(3, 4, 4))], torch.sigmoid, 1)
    value = score_copies(Segmenter(), [(lambda row: row[0].mean(), torch.ones(3, 4, 4))], torch.sigmoid, 1)
    assert value == pytest.approx(1 / (1 + np.exp(-1)))


def test_structured_outputs():
    class Tuple(nn.Module):
        def forward(self, images):
            return (images,)

    with pytest.raises(TypeError, match="returned a tuple"):
        score_copies(Tuple(), [(TARGET, torch.ones(3, 4, 4))], class_probability, 1)


def test_half_precision_outputs_become_float32_probabilities():
    assert class_probability(torch.zeros(1, 4, dtype=torch.bfloat16)).dtype == torch.float32
