"""The event handlers of the page, without a browser."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from holistic_cam_plugin.app.handlers import Handlers
from holistic_cam_plugin.app.shown import NO_MAPS, Shown
from holistic_cam_plugin.app.snippet import Source
from holistic_cam_plugin.demo import load_demo_image
from holistic_cam_plugin.models.classifier import load_classifier
from tests.models.files import MODEL, make_labels, make_weights
from tests.models.two_towers import TEXTS, save_folder

COLOURS = ("linear", "jet", 0.5)
TAB, OTHER = SimpleNamespace(session_hash="a"), SimpleNamespace(session_hash="b")
# Outside of an event, Gradio's message is a warning of Python.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:gradio", "ignore::UserWarning:holistic_cam_plugin.app")


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return Handlers(Source(device="cpu"), tmp_path_factory.mktemp("files"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scene.png"
    load_demo_image().save(path)
    return str(path)


class Silent:
    def tqdm(self, some, desc):
        return some


def run(handlers, seen, tab=TAB, *, targets=(9,), methods=("gradcam", "holisticcam"), layers=("layer2", "layer4"),
        pyramid="number", sizes="", texts="", colours=COLOURS):  # fmt: skip
    choice = (list(targets), list(layers), list(methods), ["positive"], pyramid, 1, sizes, True)
    return handlers.explain(seen, texts, *choice, *colours, tab, Silent())


def look(handlers, path):
    """What the page shows of a picture, and that of its maps."""
    seen, picture, best, targets, *rest = handlers.look(path, "")
    return seen, picture, best, targets, Shown(*rest)


def test_an_upload_is_seen(handlers, picture):
    seen, shown, best, targets, maps = look(handlers, picture)
    assert shown.startswith('<img src="data:image/jpeg;base64,')
    assert next(iter(best)) == "digit 9"
    assert len(best) == 5
    assert sorted(best.values(), reverse=True) == list(best.values())
    assert sum(best.values()) <= 1.0001
    assert targets["value"] == [9]
    assert seen.prediction.probabilities.argmax() == 9
    assert maps == NO_MAPS


def test_an_upload_that_is_no_image_is_refused_in_one_line_without_its_path(handlers, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_text("no image")
    seen, picture, best, targets, maps = look(handlers, str(path))
    assert (seen, picture, best, targets) == (None, "", None, [])
    assert maps._replace(status="") == NO_MAPS
    assert maps.status.startswith("Error: the picture cannot be read as an image")
    assert "\n" not in maps.status
    assert "<" not in maps.status
    assert str(tmp_path) not in maps.status


def test_no_picture_clears_all(handlers):
    seen, picture, best, targets, maps = look(handlers, None)
    assert (seen, picture, best, targets, maps) == (None, "", None, [], NO_MAPS)
    assert maps.result is None
    assert not maps.figure["interactive"]
    assert maps.left["choices"] == []


def test_bfloat16_is_that_of_the_command_line(tmp_path):
    handlers = Handlers(Source(device="cpu", amp=True), tmp_path)
    seen, *_ = handlers.first_example("")
    *_, last = run(handlers, seen)
    result = last.result
    theirs, ours = result.explanation.methods
    assert ours.options["amp"] is True
    assert "amp" not in theirs.options
    assert "amp=True" in handlers.python(result, 1 + 2)


def test_examples_are_there_from_the_start(handlers):
    seen, *_ = handlers.first_example("")
    assert seen.prediction.probabilities.argmax() == 9
    other, *_ = handlers.look_at_example("", SimpleNamespace(index=1))
    assert (other.picture != seen.picture).any()
    assert len(handlers.examples) == 6
    assert "there is no such example" in handlers.look_at_example("", SimpleNamespace(index=6))[6]


def test_a_click_on_one_of_the_best_adds_it(handlers):
    seen, *_ = handlers.first_example("")
    assert handlers.add_class(seen, [9], SimpleNamespace(value="digit 2")) == [9, 2]
    assert handlers.add_class(seen, [9], SimpleNamespace(value="digit 9")) == [9]
    assert handlers.add_class(None, [9], SimpleNamespace(value="digit 2")) == gr.skip()


def test_a_run(handlers, picture):
    seen, *_ = handlers.look(picture, "")
    start, stop, status = handlers.begin(TAB)
    assert (start["interactive"], stop["interactive"], status) == (False, True, "Waiting for the model")
    first, both, last = run(handlers, seen)
    assert first.table.count('class="pending"') == 2
    assert (len(first.result.explanation.maps), len(both.result.explanation.maps)) == (1, 2)
    assert last.status.startswith("4 maps in ")
    assert (last.start["interactive"], last.stop["interactive"]) == (True, False)
    assert (last.left["value"], last.right["value"], last.which["value"]) == (2, 4, 4)
    assert last.left["choices"][2] == ("Grad-CAM, layer4", 2)
    assert last.which["choices"][0] == ("Grad-CAM, layer2", 1)
    assert last.pair.count("<img") == 2
    assert 'classifier.at(["layer4"])' in last.code
    assert Path(last.figure["value"]).read_bytes().startswith(b"\x89PNG")
    assert np.load(last.arrays["value"])["maps"].shape == (2, 2, 1, 224, 224)


def test_other_colours_compute_no_map(handlers, picture, monkeypatch):
    seen, *_ = handlers.look(picture, "")
    *_, last = run(handlers, seen)
    monkeypatch.setattr(handlers.classifier.model, "forward", None)
    table, pair = handlers.colour(last.result, 1, 4, "sqrt", "viridis", 0.8, TAB)
    assert table != last.table
    original = handlers.colour(last.result, 0, 4, "sqrt", "viridis", 0.8, TAB)[1]
    assert original != pair
    assert 'classifier.at(["layer2"])' in handlers.python(last.result, 1)
    figure = Path(handlers.figure(last.result, "sqrt", "viridis", 0.8)["value"])
    assert figure.read_bytes() != Path(last.figure["value"]).read_bytes()


def test_a_run_takes_the_colours_that_are_chosen_while_it_runs(handlers, picture):
    seen, *_ = handlers.look(picture, "")
    handlers.begin(TAB)
    steps = run(handlers, seen)
    first = next(steps)
    other = ("sqrt", "viridis", 0.8)
    assert handlers.colour(first.result, 0, 1, *other, TAB) == (gr.skip(), gr.skip())
    *_, last = steps
    assert handlers.colour(last.result, 2, 4, *other, TAB) == (last.table, last.pair)


def test_before_there_are_maps_nothing_changes(handlers):
    assert handlers.colour(None, 0, 0, *COLOURS, TAB) == (gr.skip(), gr.skip())
    assert handlers.compare(None, 0, 0, *COLOURS) == gr.skip()
    assert handlers.python(None, 0) == gr.skip()
    assert handlers.figure(None, *COLOURS) == gr.skip()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"targets": ()}, "choose a class to explain"),
        ({"methods": ()}, "choose a method"),
        ({"layers": ()}, "choose a layer"),
        ({"layers": ("layer9",)}, "has no layer &#x27;layer9&#x27;"),
        ({"pyramid": "sizes", "sizes": "224 x"}, "sizes must be at most"),
        ({"pyramid": "sizes", "sizes": "<b>"}, "got &#x27;&lt;b&gt;&#x27;"),
    ],
)
def test_what_is_missing_or_wrong_is_told_and_the_run_ends(handlers, picture, mistake, message):
    seen, *_ = handlers.look(picture, "")
    handlers.begin(TAB)
    (last,) = run(handlers, seen, **mistake)
    assert last.status.startswith("Error: ")
    assert message in last.status
    assert (last.start["interactive"], last.stop["interactive"]) == (True, False)
    assert last.table == gr.skip()
    assert not handlers._runs


def test_without_a_picture_there_is_nothing_to_explain(handlers):
    (last,) = run(handlers, None)
    assert last.status == "Error: choose a picture first"


def test_an_error_of_gradio_resets_the_buttons(handlers):
    handlers.begin(TAB)
    start, stop, status = handlers.fail(TAB)
    assert (start["interactive"], stop["interactive"]) == (True, False)
    assert status == "Error: a value is not valid"
    assert not handlers._runs


def test_a_stop_keeps_what_is_there_and_is_of_one_tab(handlers, picture):
    seen, *_ = handlers.look(picture, "")
    handlers.begin(TAB)
    handlers.begin(OTHER)
    steps = run(handlers, seen)
    next(steps)
    handlers.stop(TAB)
    (last,) = steps
    assert last.status == "Stopped after 1 of 2 columns"
    assert len(last.result.explanation.maps) == 1
    assert np.load(last.arrays["value"])["maps"].shape == (1, 2, 1, 224, 224)
    assert len(list(run(handlers, seen, OTHER))) == 3
    handlers.begin(TAB)  # the next run is not stopped by the last one's stop
    assert len(list(run(handlers, seen))) == 3


def test_a_stop_before_the_turn_comes(handlers, picture):
    seen, *_ = handlers.look(picture, "")
    handlers.begin(TAB)
    assert handlers.stop(TAB) == "Stopping"
    (last,) = run(handlers, seen)
    assert last.status == "Stopped after 0 of 2 columns"
    assert handlers.stop(TAB) == ""


def test_a_closed_tab_stops_its_run_and_leaves_nothing(handlers, picture):
    seen, *_ = handlers.look(picture, "")
    handlers.begin(TAB)
    steps = run(handlers, seen)
    next(steps)
    handlers.leave(TAB)
    assert [shown.status for shown in steps] == ["Stopped after 1 of 2 columns"]
    handlers.leave(TAB)
    assert not handlers._runs


def test_texts_are_the_classes_of_a_tab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_folder(tmp_path / "clip")
    handlers = Handlers(Source("hf/./clip", device="cpu", text=TEXTS), tmp_path)
    assert handlers.texts == "\n".join(TEXTS)
    first, _, best, _, *_ = handlers.first_example(handlers.texts)
    assert set(best) == set(TEXTS)
    assert handlers.change_texts(first, handlers.texts)[0] == gr.skip()

    others = "a dog\n\n  a bird \n"
    seen, _, best, targets, *rest = handlers.change_texts(first, others)
    expected = load_classifier("hf/./clip", device="cpu", text=["a dog", "a bird"]).model(first.prediction.images)
    np.testing.assert_allclose(list(best.values()), sorted(expected.softmax(1)[0].tolist(), reverse=True), rtol=1e-4)
    assert targets["choices"] == [("a dog", 0), ("a bird", 1)]
    assert Shown(*rest) == NO_MAPS
    assert first.classes == TEXTS  # of another tab
    *_, last = run(handlers, seen, targets=[1], methods=["gradcam"], layers=handlers.stages[-1:], texts=others)
    assert last.status.startswith("1 maps in ")
    assert 'text=["a dog", "a bird"]' in last.code


@pytest.mark.parametrize(("texts", "message"), [("a dog\na dog", "is given twice"), ("\n", "text is empty")])
def test_wrong_texts_are_told_when_they_are_written_and_when_they_are_needed(tmp_path, monkeypatch, texts, message):
    monkeypatch.chdir(tmp_path)
    save_folder(tmp_path / "clip")
    handlers = Handlers(Source("hf/./clip", device="cpu", text=TEXTS), tmp_path)
    seen, *_ = handlers.first_example(handlers.texts)
    *kept, status = handlers.change_texts(seen, texts)[:7]
    assert message in status
    assert kept == [gr.skip()] * 6
    (last,) = run(handlers, seen, targets=[0], methods=["gradcam"], layers=handlers.stages[-1:], texts=texts)
    assert message in last.status
    (last,) = run(handlers, seen, targets=[0], methods=["gradcam"], layers=handlers.stages[-1:], texts="a dog")
    assert "the texts have changed" in last.status


def test_a_model_of_ones_own(tmp_path):
    source = Source(MODEL, make_weights(tmp_path), make_labels(tmp_path), "cpu")
    handlers = Handlers(source, tmp_path)
    assert handlers.classes == ["ant", "bee", "hen"]
    _, _, best, *_ = handlers.first_example("")
    assert set(best) == {"ant", "bee", "hen"}
    assert len(handlers.examples) == 2
