from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from holistic_cam_plugin.targets import check_outputs, check_targets, predicted_targets, total_score


@pytest.mark.parametrize("targets", [None, [len, len], (len, ClassifierOutputTarget(1))])
def test_one_callable_an_image_passes(targets):
    check_targets(targets, 2)


@pytest.mark.parametrize(
    ("targets", "error", "match"),
    [
        ([len], ValueError, "got 1 targets for 2 images: name one target an image"),
        ([len] * 3, ValueError, "got 3 targets for 2 images"),
        ([], ValueError, "got 0 targets for 2 images"),
        ([281, 282], TypeError, r"every target must be callable, such as ClassifierOutputTarget\(281\), got 281"),
        (ClassifierOutputTarget(3), TypeError, "targets must be None or a list with one target an image"),
        ("ab", TypeError, "targets must be None or a list"),
        ({0: len, 1: len}, TypeError, "targets must be None or a list"),
    ],
)
def test_targets_of_another_form_are_refused(targets, error, match):
    with pytest.raises(error, match=match):
        check_targets(targets, 2)


def test_none_means_each_images_best_class():
    outputs = torch.tensor([[0.1, 0.9, 0.2], [3.0, 1.0, 2.0]], requires_grad=True)
    assert [target.category for target in predicted_targets(outputs)] == [1, 0]


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
        predicted_targets(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 5), (2,), (2, 7, 3)])
def test_one_tensor_with_a_row_an_image_passes(shape):
    outputs = torch.zeros(shape)
    assert check_outputs(outputs, 2, scales=7) is outputs


class HuggingFaceLike(SimpleNamespace):
    pass


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        ((torch.zeros(2, 5),), r"returned a tuple, not a tensor(.|\n)*self\.model\(x\)\[0\]"),
        ([torch.zeros(2, 5)], r"returned a list(.|\n)*self\.model\(x\)\[0\]"),
        ([], r"returned a list(.|\n)*self\.model\(x\)\[0\]"),
        ({"out": torch.zeros(2, 5)}, r"returned a dict(.|\n)*self\.model\(x\)\[\"out\"\]"),
        ({}, r"returned a dict(.|\n)*self\.model\(x\)\[\"logits\"\]"),
        (HuggingFaceLike(logits=torch.zeros(2, 5)), r"returned a HuggingFaceLike(.|\n)*self\.model\(x\)\.logits"),
    ],
)
def test_other_structures_are_refused_with_the_wrapper_to_write(outputs, match):
    with pytest.raises(TypeError, match=match) as raised:
        check_outputs(outputs, 2)
    assert "class Wrapped(torch.nn.Module)" in str(raised.value)


def test_the_wrapper_in_the_error_works():
    with pytest.raises(TypeError) as raised:
        check_outputs((torch.zeros(2, 5),), 2)
    scope = {"torch": torch}
    exec(str(raised.value).partition("\n    ")[2].replace("\n    ", "\n"), scope)

    class Tupled(torch.nn.Module):
        def forward(self, x):
            return x, None

    assert scope["Wrapped"](Tupled())(torch.ones(2, 5)).shape == (2, 5)


def test_detection_outputs_are_refused_by_their_keys():
    outputs = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}]
    with pytest.raises(ValueError, match=r"list of 1 dicts with the keys \['boxes', 'scores'\]: detection outputs"):
        check_outputs(outputs, 1)


@pytest.mark.parametrize("shape", [(), (3, 5)])
def test_a_first_dimension_that_is_not_the_batch_is_refused(shape):
    with pytest.raises(ValueError, match="for 2 images: its first dimension is not the batch"):
        check_outputs(torch.zeros(shape), 2)


def test_segmentation_outputs_pass_at_one_scale_alone():
    outputs = torch.zeros(2, 5, 8, 8)
    assert check_outputs(outputs, 2) is outputs
    with pytest.raises(ValueError, match=r"\(2, 5, 8, 8\) \(semantic segmentation\).*num_scales=1, with Semantic"):
        check_outputs(outputs, 2, scales=7)


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
        (lambda output: output, r"must give one value an image, as a tensor, got shape \(2,\)"),
        (lambda output: 3.5, "must give one value an image, as a tensor, got 3.5"),
        (lambda output: torch.tensor(1.0), "score does not depend on the target layers: nothing to explain"),
    ],
)
def test_a_target_without_one_differentiable_value_is_refused(target, match):
    with pytest.raises(ValueError, match=match):
        total_score([target], torch.zeros(1, 2, requires_grad=True))
