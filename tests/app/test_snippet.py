"""The script of the page computes the array that is downloaded."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from holistic_cam_plugin.app.choices import label_method
from holistic_cam_plugin.app.downloads import save_arrays, save_page_figure
from holistic_cam_plugin.app.rendering import Colours, Result
from holistic_cam_plugin.app.snippet import PHOTO, Source, write_snippet
from holistic_cam_plugin.demo import load_demo_image
from holistic_cam_plugin.explain import Explanation, Request, explain, predict
from holistic_cam_plugin.methods import Method
from holistic_cam_plugin.models.images import preprocess_image, read_image
from tests.models.files import MODEL, make_labels, make_photo, make_weights
from tests.models.test_build_libraries import small_vit

BUNDLED = Source(device="cpu")
POSITIVE = {"weighting": "positive", "num_scales": 2}


def explain_image(classifier, image, methods, layers, targets) -> Explanation:
    prediction = predict(classifier, preprocess_image(image, classifier))
    *_, (explanation,) = explain(Request(classifier, classifier.at(layers), methods), prediction, [targets])
    return explanation


@pytest.fixture
def same(tmp_path, monkeypatch):
    """Whether the script gives the array, for the last layer and class of a choice of one column."""

    def check(source: Source, column: Method, layers: list[str], targets: list[int]) -> bool:
        monkeypatch.chdir(tmp_path)
        classifier = source.load()
        explanation = explain_image(classifier, read_image(Path(PHOTO)), [column], layers, targets)
        arrays = np.load(
            save_arrays(tmp_path, Result(np.zeros((8, 8, 3), np.float32), explanation, classifier.classes))
        )
        code = write_snippet(source, column, layers[-1], targets[-1], classifier.classes[targets[-1]])
        Path("script.py").write_text(code)
        found = runpy.run_path("script.py")["saliency_map"]
        assert found.any()
        # Several layers and classes share the passes, which costs the last bits.
        return np.abs(found - arrays["maps"][0, -1, -1]).max() < 1 / 255

    return check


@pytest.mark.parametrize(
    "column",
    [
        Method("classholisticcam", {"sizes": "fast"}),
        Method("holisticcam", POSITIVE),
        Method("holisticcam", {"weighting": "pge", "sizes": [224, 300], "fsd": False}),
        Method("holisticcam", {"weighting": "positive", "sizes": "fast", "amp": True}),
        Method("gradcam", {}),
        Method("refinecam", {}),
        Method("finercam", {}),
    ],
    ids=lambda column: label_method(column).replace("\n", " "),
)
def test_the_bundled_model(same, tmp_path, column):
    load_demo_image().save(tmp_path / PHOTO, "PNG")
    assert same(BUNDLED, column, ["layer2", "layer4"], [9, 2])


def test_a_models_own_weights(same, tmp_path):
    make_photo(tmp_path)
    source = Source(MODEL, make_weights(tmp_path), make_labels(tmp_path), "cpu")
    assert same(source, Method("holisticcam", POSITIVE), ["features.12"], [1])


@pytest.mark.parametrize("method", ["holisticcam", "classholisticcam", "gradcam", "refinecam"])
def test_a_transformer(same, tmp_path, method):
    make_photo(tmp_path)
    small_vit().save_pretrained(tmp_path / "vit")
    options = {"sizes": [64, 96]} if "holisticcam" in method else {}
    layers = ["vit.layers.1.layernorm_before", "vit.layers.2"]
    assert same(Source("hf/./vit", device="cpu"), Method(method, options), layers, [1])


def test_names_with_quotes_are_quoted():
    code = write_snippet(
        Source(MODEL, Path('it\'s "mine".pth'), None, "cpu"), Method("gradcam", {}), "features.12", 3, "a"
    )
    compile(code, "script.py", "exec")
    assert r'Path("it' in code


def test_a_snippet_is_short():
    code = write_snippet(BUNDLED, Method("holisticcam", POSITIVE), "layer4", 9, "digit 9")
    lines = [line for line in code.splitlines() if line and not line.startswith("from ")]
    assert len(lines) <= 6
    assert all(len(line) <= 120 for line in code.splitlines())
    assert 'HolisticCAM(found.model, found.target_layers, **needed, weighting="positive"' in code
    code = write_snippet(BUNDLED, Method("classholisticcam", {}), "layer4", 9, "digit 9")
    assert "ClassHolisticCAM(found.model, found.target_layers, **found.options)" in code


def test_the_files(tmp_path):
    classifier = BUNDLED.load()
    methods = [Method("gradcam", {}), Method("layercam", {})]
    explanation = explain_image(classifier, load_demo_image(), methods, ["layer3", "layer4"], [9, 2])
    result = Result(np.zeros((224, 224, 3), np.float32), explanation, classifier.classes)
    arrays = np.load(save_arrays(tmp_path, result))
    assert arrays["maps"].shape == (2, 2, 2, 224, 224)
    assert arrays["maps"].dtype == np.float32
    assert (arrays["maps"][1, 0, 1] == explanation.maps[1][0, 1]).all()
    assert arrays["methods"].tolist() == ["Grad-CAM", "Layer-CAM"]
    assert arrays["layers"].tolist() == ["layer3", "layer4"]
    assert arrays["targets"].tolist() == [9, 2]
    assert arrays["classes"].tolist() == ["digit 9", "digit 2"]
    first = save_page_figure(tmp_path, result, Colours()).read_bytes()
    second = save_page_figure(tmp_path, result, Colours("sqrt", "viridis", 0.7)).read_bytes()
    assert first.startswith(b"\x89PNG")
    assert first != second
