"""Maps a method at a time: the same as anywhere else, and none after somebody has had enough."""

from __future__ import annotations

import numpy as np
import pytest

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.app.choices import Choice, Column
from holistic_cam_plugin.app.explaining import Stopped, explain, look
from holistic_cam_plugin.classifiers.models import demo_classifier
from holistic_cam_plugin.demo import demo_image
from holistic_cam_plugin.errors import UsageError

FAST = {"weighting": "positive", "num_scales": 2}
COLUMNS = [Column("gradcam", {}), Column("holisticcam", FAST)]


@pytest.fixture(scope="module")
def classifier():
    return demo_classifier("cpu")


@pytest.fixture(scope="module")
def seen(classifier):
    return look(demo_image(), classifier)


def never():
    return False


def silent(_, some):
    return some


def test_what_the_model_sees(seen):
    assert seen.picture.shape == (224, 224, 3)
    assert seen.probabilities.argmax() == 9
    assert seen.probabilities.sum() == pytest.approx(1)


def test_one_column_after_the_other(classifier, seen):
    choice = Choice([9, 2], ["layer2", "layer4"], COLUMNS)
    first, both = explain(classifier, seen, choice, silent, never)
    assert (len(first.maps), len(both.maps)) == (1, 2)
    assert [len(of_column) for of_column in both.maps] == [2, 2]
    for of_column in both.maps:
        for of_layer in of_column:
            assert of_layer.shape == (2, 224, 224)
            assert of_layer.dtype == np.float32
    model = classifier.model
    own = HolisticCAM(model, [model.layer2], **FAST)(seen.images, [lambda scores: scores[2]])[0]
    assert np.abs(both.maps[1][0][1] - own).max() < 1 / 255


def test_progress_is_told_of_every_scale(classifier, seen):
    told = []

    def progress(what, some):
        for one in some:
            told.append(what)
            yield one

    list(explain(classifier, seen, Choice([9], ["layer4"], COLUMNS), progress, never))
    assert told == ["1 of 2: Grad-CAM", *["2 of 2: Holistic-CAM positive"] * 2]


@pytest.mark.parametrize("method", ["holisticcam", "gradcam", "rise", "refinecam"])
def test_a_stop_ends_it_at_the_next_pass_whatever_the_method(classifier, seen, method):
    passes = []

    def stopped():
        passes.append(len(passes))
        return len(passes) > 1

    before = len(classifier.model._forward_pre_hooks)
    columns = [Column(method, FAST if method == "holisticcam" else {})] * 2
    with pytest.raises(Stopped):
        list(explain(classifier, seen, Choice([9], ["layer4"], columns), silent, stopped))
    assert len(passes) == 2
    assert len(classifier.model._forward_pre_hooks) == before
    assert len(list(explain(classifier, seen, Choice([9], ["layer4"], COLUMNS), silent, never))) == 2


def test_what_a_method_refuses_is_one_line(classifier, seen):
    column = Column("holisticcam", {"sizes": [0]})
    with pytest.raises(UsageError, match="Holistic-CAM can't explain layer4: ") as refusal:
        list(explain(classifier, seen, Choice([9], ["layer4"], [column]), silent, never))
    assert "\n" not in str(refusal.value)
