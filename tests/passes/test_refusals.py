"""Errors at a scale of the pyramid: what a model of fixed size says is explained, everything else is left alone."""

from __future__ import annotations

import pytest
import torch

from holistic_cam_plugin import CAMERAS
from holistic_cam_plugin.passes.refusals import LayerError, refusal_explained


def test_a_refusal_of_the_native_size_is_the_models_own_error():
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"), refusal_explained((64, 64), (64, 64)):
        raise RuntimeError("mat1 and mat2")


def test_lack_of_memory_is_not_mistaken_for_a_fixed_size():
    with pytest.raises(torch.OutOfMemoryError, match=r"^full$"), refusal_explained((96, 96), (64, 64)):
        raise torch.OutOfMemoryError("full")


def test_a_layer_that_never_works_is_not_a_matter_of_size():
    with pytest.raises(LayerError, match=r"^no maps$"), refusal_explained((96, 96), (64, 64)):
        raise LayerError("no maps")


def test_a_score_without_the_layer_is_reported_as_such_at_any_base_scale(net, images):
    cam = CAMERAS(net, [net.layer2], sizes=[80, 96])
    with pytest.raises(ValueError, match=r"^the targets' score does not depend on the target layers"):
        cam(images, [lambda output: torch.zeros(())] * 2)


def test_nested_with_blocks_keep_evaluation_mode_until_the_outer_one_ends(net):
    net.train()
    cam = CAMERAS(net, [net.layer2])
    with cam:
        with cam:
            assert not net.training
        assert not net.training
    assert net.training
