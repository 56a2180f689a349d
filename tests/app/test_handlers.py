"""The event handlers of the page, without a browser."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from holistic_cam_plugin.app.handlers import Handlers
from holistic_cam_plugin.app.snippet import Source
from holistic_cam_plugin.demo import load_demo_image
from tests.models.files import MODEL, make_labels, make_weights

COLOURS = ("linear", "jet", 0.5)
TAB, OTHER = SimpleNamespace(session_hash="a"), SimpleNamespace(session_hash="b")


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


def run(handlers, seen, tab=TAB, *, methods=("gradcam", "holisticcam"), scales=1, sizes="", colours=COLOURS):
    choice = ([9], ["layer2", "layer4"], list(methods), ["positive"], scales, sizes, True)
    return handlers.explain(seen, *choice, *colours, tab, Silent())


def test_an_upload_is_seen(handlers, picture):
    seen, shown, best, targets = handlers.look(picture)
    assert shown.size == (224, 224)
    assert next(iter(best)) == "digit 9"
    assert len(best) == 5
    assert sorted(best.values(), reverse=True) == list(best.values())
    assert sum(best.values()) <= 1.0001
    assert targets == [9]
    assert seen.prediction.probabilities.argmax() == 9


def test_an_upload_that_is_no_image_is_refused_in_one_line_without_its_path(handlers, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_text("no image")
    with pytest.raises(gr.Error) as refusal:
        handlers.look(str(path))
    message = refusal.value.message
    assert message.startswith("the picture cannot be read as an image")
    assert "\n" not in message
    assert "<" not in message
    assert str(tmp_path) not in message


def test_bfloat16_is_that_of_the_command_line(tmp_path):
    handlers = Handlers(Source(device="cpu", amp=True), tmp_path)
    seen, *_ = handlers.first_example()
    *_, (result, _, _) = run(handlers, seen)
    theirs, ours = result.explanation.methods
    assert ours.options["amp"] is True
    assert "amp" not in theirs.options
    assert "amp=True" in handlers.python(result, 1 + 2)


def test_examples_are_there_from_the_start(handlers):
    seen, *_ = handlers.first_example()
    assert seen.prediction.probabilities.argmax() == 9
    other, *_ = handlers.look_at_example(SimpleNamespace(index=1))
    assert (other.picture != seen.picture).any()
    assert len(handlers.examples) == 6


def test_a_click_on_one_of_the_best_adds_it(handlers):
    assert handlers.add_class([9], SimpleNamespace(value="digit 2")) == [9, 2]
    assert handlers.add_class([9], SimpleNamespace(value="digit 9")) == [9]


def test_a_run(handlers, picture):
    seen, *_ = handlers.look(picture)
    handlers.begin(TAB)
    (first, table, _), (both, _, seconds) = run(handlers, seen)
    assert table.count('class="pending"') == 2
    assert (len(first.explanation.maps), len(both.explanation.maps)) == (1, 2)
    assert seconds.startswith("4 maps in ")
    start, stop, left, right, pair, which, code = handlers.end(both, *COLOURS, TAB)
    assert (start["interactive"], stop["interactive"]) == (True, False)
    assert (left["value"], right["value"], which["value"]) == (2, 4, 4)
    assert left["choices"][2] == ("Grad-CAM, layer4", 2)
    assert which["choices"][0] == ("Grad-CAM, layer2", 1)
    assert len(pair) == 2
    assert 'classifier.at(["layer4"])' in code
    figure, arrays = (Path(update["value"]) for update in handlers.files(both, *COLOURS))
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert np.load(arrays)["maps"].shape == (2, 2, 1, 224, 224)


def test_other_colours_compute_no_map(handlers, picture, monkeypatch):
    seen, *_ = handlers.look(picture)
    *_, (result, before, _) = run(handlers, seen)
    monkeypatch.setattr(handlers.classifier.model, "forward", None)
    table, pair = handlers.colour(result, 1, 4, "sqrt", "viridis", 0.8)
    assert table != before
    original = handlers.colour(result, 0, 4, "sqrt", "viridis", 0.8)[1][0]
    assert (np.asarray(original) != np.asarray(pair[0])).any()
    assert 'classifier.at(["layer2"])' in handlers.python(result, 1)


def test_before_there_are_maps_nothing_changes(handlers):
    assert handlers.colour(None, 0, 0, *COLOURS) == (gr.skip(), gr.skip())
    assert handlers.compare(None, 0, 0, *COLOURS) == gr.skip()
    assert handlers.python(None, 0) == gr.skip()
    assert handlers.files(None, *COLOURS) == (gr.skip(), gr.skip())
    start, *_, code = handlers.end(None, *COLOURS, TAB)
    assert start["interactive"]
    assert code == gr.skip()


def test_what_is_missing_or_wrong_is_told(handlers, picture):
    with pytest.raises(gr.Error, match="choose a picture first"):
        list(run(handlers, None))
    seen, *_ = handlers.look(picture)
    with pytest.raises(gr.Error, match="choose a method"):
        list(run(handlers, seen, methods=()))
    with pytest.raises(gr.Error, match="sizes must be at most"):
        list(run(handlers, seen, sizes="lots"))


def test_a_stop_keeps_what_is_there_and_is_of_one_tab(handlers, picture):
    seen, *_ = handlers.look(picture)
    handlers.begin(TAB)
    handlers.begin(OTHER)
    steps = run(handlers, seen)
    result, *_ = next(steps)
    handlers.stop(TAB)
    ((skipped, _, word),) = steps
    assert skipped == gr.skip()
    assert word == "Stopped after 1 of 2 columns"
    assert len(result.explanation.maps) == 1
    assert len(list(run(handlers, seen, OTHER))) == 2
    handlers.begin(TAB)  # the next run is not stopped by the last one's stop
    assert len(list(run(handlers, seen))) == 2


def test_a_stop_before_the_turn_comes(handlers, picture):
    seen, *_ = handlers.look(picture)
    handlers.begin(TAB)
    handlers.stop(TAB)
    ((_, _, word),) = run(handlers, seen)
    assert word == "Stopped after 0 of 2 columns"


def test_a_closed_tab_stops_its_run_and_leaves_nothing(handlers, picture):
    seen, *_ = handlers.look(picture)
    handlers.begin(TAB)
    steps = run(handlers, seen)
    next(steps)
    handlers.leave(TAB)
    assert [word for *_, word in steps] == ["Stopped after 1 of 2 columns"]
    handlers.leave(TAB)
    handlers.end(None, *COLOURS, OTHER)
    assert not handlers._stops


def test_a_model_of_ones_own(tmp_path):
    source = Source(MODEL, make_weights(tmp_path), make_labels(tmp_path), "cpu")
    handlers = Handlers(source, tmp_path)
    assert handlers.classes == ["ant", "bee", "hen"]
    _, _, best, _ = handlers.first_example()
    assert set(best) == {"ant", "bee", "hen"}
    assert len(handlers.examples) == 2
