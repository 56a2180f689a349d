from __future__ import annotations

import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin.passes.targets import check_targets, predict_targets, total_score


@pytest.mark.parametrize("targets", [None, [len, len], (len, ClassifierOutputTarget(1))])
def test_one_callable_an_image_passes(targets):
    check_targets(targets, 2)


@pytest.mark.parametrize(
    ("targets", "error", "match"),
    [
        ([len], ValueError, "got 1 targets for 2 images: pass one target per image"),
        ([len] * 3, ValueError, "got 3 targets for 2 images"),
        ([], ValueError, "got 0 targets for 2 images"),
        ([281, 282], TypeError, r"every target must be callable, such as ClassifierOutputTarget\(281\), got 281"),
        (ClassifierOutputTarget(3), TypeError, "targets must be None or a list with one target per image"),
        ("ab", TypeError, "targets must be None or a list"),
        ({0: len, 1: len}, TypeError, "targets must be None or a list"),
    ],
)
def test_targets_of_another_form_are_refused(targets, error, match):
    with pytest.raises(error, match=match):
        check_targets(targets, 2)


def test_none_means_each_images_best_class():
    outputs = torch.tensor([[0.1, 0.9, 0.2], [3.0, 1.0, 2.0]], requires_grad=True)
    assert [target.category for target in predict_targets(outputs)] == [1, 0]


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((2, 5, 8, 8), r"returned \(2, 5, 8, 8\): for semantic segmentation pass .*SemanticSegmentationTarget"),
        ((2,), r"returned \(2,\): pass targets="),
        ((2, 0), r"returned \(2, 0\): pass targets="),
        ((2, 7, 3), r"shape \(B, classes\), the model returned \(2, 7, 3\)"),
    ],
)
def test_none_on_other_outputs_names_the_shape_and_the_remedy(shape, match):
    with pytest.raises(ValueError, match=match):
        predict_targets(torch.zeros(shape))


def test_the_score_is_the_sum_over_the_images():
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    score = total_score([ClassifierOutputTarget(1), lambda output: output[:1] * 10], outputs)
    assert score.shape == ()
    assert score.item() == 32
    gradient = torch.autograd.grad(score, outputs)[0]
    assert gradient.tolist() == [[0, 1], [10, 0]]


@pytest.mark.parametrize(
    ("target", "match"),
    [
        (lambda output: output, r"must return one value per image, as a tensor, got shape \(2,\)"),
        (lambda output: 3.5, "must return one value per image, as a tensor, got 3.5"),
        (lambda output: torch.tensor(1.0), "score does not depend on the target layers: nothing to explain"),
    ],
)
def test_a_target_without_one_differentiable_value_is_refused(target, match):
    with pytest.raises(ValueError, match=match):
        total_score([target], torch.zeros(1, 2, requires_grad=True))
