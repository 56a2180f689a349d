"""The maps of several methods, one after the other: the same for every command, with one error for all methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.app.examples import load_examples
from holistic_cam_plugin.demo import load_demo_image
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.explain import Request, explain, predict
from holistic_cam_plugin.methods import METHODS, Method
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.images import preprocess_image

FAST = {"weighting": "positive", "num_scales": 2}
METHODS_OF_BOTH_KINDS = [Method("gradcam", {}), Method("holisticcam", FAST)]


@pytest.fixture(scope="module")
def classifier():
    return load_classifier("digits", None, None, "cpu")


@pytest.fixture(scope="module")
def prediction(classifier):
    return predict(classifier, preprocess_image(load_demo_image(), classifier))


@pytest.fixture
def request_for(classifier):
    def create(*methods, layers=("layer4",), **smoothing):
        return Request(classifier, classifier.at(layers), methods, **smoothing)

    return create


def test_a_prediction(prediction):
    assert prediction.scores.shape == prediction.probabilities.shape == (1, 10)
    assert prediction.scores.argmax() == 9
    assert prediction.probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(prediction.probabilities, torch.tensor(prediction.scores).softmax(1), atol=1e-6)


def test_one_method_after_the_other(request_for, classifier, prediction):
    request = request_for(*METHODS_OF_BOTH_KINDS, layers=["layer2", "layer4"])
    (first,), (both,) = explain(request, prediction, [[9, 2]])
    assert (len(first.maps), len(both.maps)) == (1, 2)
    assert (len(first.seconds), len(both.seconds)) == (1, 2)
    assert (both.layers, both.targets, both.predicted) == (["layer2", "layer4"], [9, 2], 9)
    for maps in both.maps:
        assert maps.shape == (2, 2, 224, 224)
        assert maps.dtype == np.float32
    model = classifier.model
    own = HolisticCAM(model, [model.layer2], **FAST)(prediction.images, [lambda scores: scores[2]])[0]
    assert np.abs(both.maps[1][0, 1] - own).max() < 1 / 255


def test_every_image_has_its_own_maps_and_scores(request_for, classifier, prediction):
    images = torch.cat([prediction.images, preprocess_image(load_examples("digits")[1], classifier)])
    both = predict(classifier, images)
    *_, explanations = explain(request_for(*METHODS_OF_BOTH_KINDS), both, [[], [1, 7]])
    assert [one.targets for one in explanations] == [[9], [1, 7]]
    assert [one.maps[1].shape for one in explanations] == [(1, 1, 224, 224), (1, 2, 224, 224)]
    for number, one in enumerate(explanations):
        np.testing.assert_array_equal(one.scores, both.scores[number])
        *_, (alone,) = explain(
            request_for(*METHODS_OF_BOTH_KINDS), predict(classifier, images[number, None]), [one.targets]
        )
        for of_batch, of_image in zip(one.maps, alone.maps, strict=True):
            assert np.abs(of_batch - of_image).max() < 1 / 255


def test_progress_wraps_the_loops(request_for, prediction):
    steps = []

    def progress(method, loop):
        for step in loop:
            steps.append(method.name)
            yield step

    list(explain(request_for(*METHODS_OF_BOTH_KINDS), prediction, [[9]], progress))
    assert steps == ["Grad-CAM", *["Holistic-CAM positive"] * 2]


def test_random_cam_gives_the_same_maps_in_every_run(request_for, prediction):
    maps = []
    for methods in (["randomcam"], ["gradcam", "randomcam"]):
        np.random.rand(3)
        *_, (explanation,) = explain(request_for(*(Method(key, {}) for key in methods)), prediction, [[9]])
        maps.append(explanation.maps[-1])
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no gradient\nin C++"), "no gradient"),
        (KeyError("x"), "'x'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_a_method_raises_is_one_error(request_for, prediction, monkeypatch, error, reason):
    class Failing(HolisticCAM):
        def compute_cam_per_layer(self, *_, **__):
            raise error

    monkeypatch.setitem(METHODS, "holisticcam", Failing)
    with pytest.raises(UsageError, match=f"^Holistic-CAM positive cannot explain layer3, layer4: {reason}$") as raised:
        list(explain(request_for(Method("holisticcam", FAST), layers=["layer3", "layer4"]), prediction, [[9]]))
    assert raised.value.__cause__ is error


def test_smoothing_is_for_all_methods(request_for, prediction):
    with pytest.raises(UsageError, match="FinerCAM cannot explain layer4: FinerCAM has no test-time augmentation"):
        list(explain(request_for(Method("finercam", {}), aug_smooth=True), prediction, [[9]]))
    plain, smooth = (
        next(explain(request_for(Method("gradcam", {}), eigen_smooth=smooth), prediction, [[9]]))[0].maps[0]
        for smooth in (False, True)
    )
    assert np.abs(plain - smooth).max() > 0.01


def test_images_that_the_model_does_not_take(classifier):
    with pytest.raises(UsageError, match=r"^digits does not take images of 224 x 64 px: "):
        predict(classifier, torch.zeros(1, 5, 64, 224))


def test_outputs_without_a_value(classifier, prediction):
    with pytest.raises(UsageError, match=r"^digits returns NaN: there is nothing to explain$"):
        predict(classifier, prediction.images * float("nan"))
