"""A batch of rows in, rows with maps and reasons out; the explainer can be pickled."""

from __future__ import annotations

import io
import pickle
import re
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from holistic_cam_plugin import BatchExplainer
from holistic_cam_plugin.batch.rows import OUTPUTS, find_targets
from holistic_cam_plugin.demo import load_demo_model
from holistic_cam_plugin.demo.digits_resnet import DigitsResNet
from holistic_cam_plugin.errors import UsageError
from tests.batch.batch_tools import make_picture, make_pictures
from tests.conftest import plain_net

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")
OPTIONS = {"methods": ["gradcam"], "device": "cpu"}


@pytest.fixture
def pictures(tmp_path):
    return make_pictures(tmp_path, 3)


@pytest.fixture
def explainer(tmp_path):
    return BatchExplainer("digits", **OPTIONS, dtype="float32", root=tmp_path)


def read_maps(data):
    with np.load(io.BytesIO(data)) as archive:
        return archive["maps"]


def model_input(path):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((299, 224), Image.Resampling.BILINEAR))[:, 37:261]
    return torch.tensor(pixels / 255, dtype=torch.float32).permute(2, 0, 1)[None] * 2 - 1


def test_rows_hold_the_maps_of_pytorch_grad_cam(tmp_path, explainer):
    make_picture(tmp_path / "a.png", size=(400, 300))
    rows = explainer({"file": ["a.png"], "target": [3], "label": ["digit 7"], "id": ["mine"]})
    assert set(rows) == {*OUTPUTS, "id"}
    assert rows["id"] == ["mine"]
    model, x = load_demo_model(), model_input(tmp_path / "a.png")
    expected = GradCAM(model, [model.layer4])(x, [ClassifierOutputTarget(3)])[0]
    assert np.abs(read_maps(rows["archive"][0])[0, 0, 0] - expected).max() < 0.02
    scores = model(x)[0].detach()
    assert rows["predicted"] == [int(scores.argmax())]
    assert rows["predicted_name"] == [f"digit {int(scores.argmax())}"]
    assert rows["label"] == [7]
    assert rows["label_probability"][0] == pytest.approx(float(scores.softmax(0)[7]), abs=5e-3)
    status = (tmp_path / "a.png").stat()
    assert (rows["bytes_read"], rows["modified"]) == ([status.st_size], [status.st_mtime_ns])
    [[row]] = rows["maps"]
    assert row["score"] == pytest.approx(float(scores[3]), abs=0.05)
    assert {key: row[key] for key in ("method", "layer", "target", "class")} == {
        "method": "gradcam", "layer": "layer4", "target": 3, "class": "digit 3",
    }  # fmt: skip


def test_bytes_and_files_lists_and_arrays_give_the_same(tmp_path, explainer, pictures):
    data = [(tmp_path / name).read_bytes() for name in pictures]
    rows = explainer({"file": pictures})
    assert explainer({"file": np.array(pictures)})["archive"] == rows["archive"]
    assert explainer({"bytes": np.array(data, object)})["archive"] == rows["archive"]
    assert explainer({"bytes": [None, *data[1:]], "file": pictures})["archive"] == rows["archive"]
    assert explainer({"file": []}) == {name: [] for name in OUTPUTS}


@pytest.mark.parametrize(
    ("target", "label", "expected"),
    [
        (None, None, None), (float("nan"), "", None), ("", None, None), (3, None, [3]), (3.0, None, [3]),
        (np.int64(3), None, [3]), ("digit 3", None, [3]), ("3", 4, [3]), (None, 4, [4]), (None, 4.0, [4]),
        ([3, "digit 4", 3], 5, [3, 4]), (np.array([1, 2]), None, [1, 2]), ([], 5, [5]),
    ],
)  # fmt: skip
def test_the_target_is_the_rows_or_the_label_or_the_predicted_class(explainer, pictures, target, label, expected):
    batch = {"file": pictures[:1], "target": [target], "label": [label]}
    rows = explainer(batch)
    assert rows["error"] == [""]
    assert [row["target"] for row in rows["maps"][0]] == (expected or rows["predicted"])


def test_a_target_of_the_explainer_stands_behind_the_rows(tmp_path, pictures):
    explainer = BatchExplainer("digits", **OPTIONS, target=["digit 1", 2], root=tmp_path)
    rows = explainer({"file": pictures[:2], "target": [None, 5], "label": [7, 7]})
    assert [[row["target"] for row in maps] for maps in rows["maps"]] == [[1, 2], [5]]


def test_what_cannot_be_explained_has_a_reason(tmp_path, explainer, pictures):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    rows = explainer({"file": ["bad.jpg", "none.jpg", *pictures[:2]], "target": [1, 1, "digit 77", 1]})
    assert rows["error"] == [
        "its format is none of BMP, GIF, JPEG, JPEG2000, PNG, PPM, TGA, TIFF, WEBP",
        "No such file or directory",
        "the model has no class 'digit 77'; did you mean digit 7, digit 9 or digit 8?", "",
    ]  # fmt: skip
    assert rows["archive"][:3] == [b""] * 3
    assert rows["maps"][:3] == [[]] * 3
    assert rows["predicted"][:3] == rows["height"][:3] == [None] * 3
    assert read_maps(rows["archive"][3]).shape == (1, 1, 1, 224, 224)


def test_it_can_be_pickled_before_and_after_the_model_is_loaded(explainer, pictures):
    data = pickle.dumps(explainer)
    assert len(data) < 10_000
    rows = explainer({"file": pictures})
    assert len(pickle.dumps(explainer)) < 10_000
    for again in (pickle.loads(data), pickle.loads(pickle.dumps(explainer))):
        assert again({"file": pictures})["archive"] == rows["archive"]


def test_a_module_with_names_of_classes(tmp_path, pictures):
    model = plain_net()
    explainer = pickle.loads(
        pickle.dumps(BatchExplainer(model, labels=list("abcdef"), sizes=[64], device="cpu", root=tmp_path))
    )
    rows = explainer({"file": pictures, "target": ["f", None, 0]})
    assert rows["error"] == [""] * 3
    assert [maps[0]["class"] for maps in rows["maps"]] == ["f", rows["predicted_name"][1], "a"]


def test_threads_of_one_process_take_turns(tmp_path, explainer, pictures):
    expected = [explainer({"file": [name]})["archive"] for name in pictures]
    found = [None] * 3

    def work(number):
        found[number] = explainer({"file": [pictures[number]]})["archive"]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a name or a torch.nn.Module, got int"),
        ({"methods": ["gradcm"]}, ValueError, "unknown method 'gradcm'; did you mean gradcam"),
        ({"methods": "gradcam"}, TypeError, "methods must be a list of names, got 'gradcam'"),
        ({"methods": []}, TypeError, "methods must be a list of names, got []"),
        ({"layers": "layer4"}, TypeError, "layers must be a list of names"),
        ({"sizes": [0]}, ValueError, "sizes"),
        ({"dtype": "float64"}, ValueError, "dtype must be float16 or float32, got 'float64'"),
        ({"device": "gpu"}, ValueError, "the device 'gpu' cannot be used: "),
        ({"text": ["a"], "labels": ["b"]}, ValueError, "--labels and --text both name the classes"),
        ({"model": nn.Identity(), "weights": "x.pth"}, ValueError, "weights and text belong to models"),
    ],
)
def test_wrong_options_raise_at_once(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        BatchExplainer(**{"model": "digits", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet5"}, "did you mean resnet50"),
        ({"layers": ["layer9"]}, "the model has no layer 'layer9'"),
        ({"target": "digit 77"}, "the model has no class 'digit 77'"),
        ({"labels": ["a"]}, "labels names 1 classes, but the model has 10"),
    ],
)
def test_what_the_model_alone_can_tell_raises_at_the_first_call(pictures, options, message):
    explainer = BatchExplainer(**{"model": "digits", **OPTIONS, **options})
    with pytest.raises(ValueError, match=message):
        explainer({"file": pictures})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"path": ["a.png"]}, "a batch needs a column 'file' or 'bytes', got path"),
        ({"file": ["a.png"], "error": [""], "maps": [1]}, "the columns error, maps have names of the output"),
        ({"file": ["a.png"], "target": [1, 2]}, "zip"),
    ],
)
def test_wrong_columns_raise(explainer, batch, message):
    with pytest.raises(ValueError, match=message):
        explainer(batch)


def test_what_no_image_can_change_raises(explainer, pictures, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel")

    explainer({"file": pictures[:1]})
    monkeypatch.setattr(DigitsResNet, "forward", broken)
    with pytest.raises(ValueError, match="does not take images of 224 x 224 px: no kernel"):
        explainer({"file": pictures})


def test_numbers_are_indices_also_where_names_are_numbers():
    """Networks trained on folders of numbers have them in the order of text: 0, 1, 10, 2."""
    names = ("0", "1", "10", "2")
    assert find_targets([2, np.int64(3), 2.0], names) == (2, 3)
    assert find_targets(["2", "10"], names) == (3, 2)
    with pytest.raises(UsageError, match="class 10 is out of range: the model has classes 0 to 3"):
        find_targets(10, names)
