"""Models by name, with torchvision's weights or a local file, and what is said where that can't be."""

from __future__ import annotations

import re
from urllib.error import URLError

import pytest
import torch
import torchvision

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classes import find_classes
from holistic_cam_plugin.models.classifier import choose_device, load_classifier
from tests.models.files import CLASSES, MODEL, make_labels, make_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"))


def load(weights=None, labels=None, name=MODEL):
    return load_classifier(name, weights, labels, "cpu")


def refusal(*arguments, **options):
    with pytest.raises(UsageError) as error:
        load(*arguments, **options)
    return str(error.value)


def same_weights(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_local_weights_with_the_names_of_their_classes(weights, tmp_path):
    classifier = load(weights, make_labels(tmp_path))
    assert (classifier.name, classifier.preprocessing.size, classifier.preprocessing.resize) == (MODEL, (224, 224), 256)
    assert classifier.preprocessing.source == "torchvision"
    assert classifier.classes == list(CLASSES)
    assert load(weights).classes == ["class 0", "class 1", "class 2"]
    assert same_weights(classifier.model, torch.load(weights, weights_only=True))
    assert not classifier.model.training


def test_local_weights_for_imagenet_keep_its_class_names(tmp_path):
    torch.save(torchvision.models.get_model(MODEL, weights=None).state_dict(), tmp_path / "imagenet.pth")
    assert find_classes(["koala"], load(tmp_path / "imagenet.pth").classes) == [105]


def test_downloaded_weights_bring_their_class_names(monkeypatch):
    build = torchvision.models.get_model

    def downloaded(name, weights=None, **options):
        assert weights == "DEFAULT"
        return build(name, weights=None, **options)

    monkeypatch.setattr(torchvision.models, "get_model", downloaded)
    monkeypatch.setattr("holistic_cam_plugin.models.network.is_reachable", lambda _: True)
    classes = load().classes
    assert len(classes) == 1000
    assert find_classes(["Toucan"], classes) == [96]


def test_no_network_names_the_ways_out(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    monkeypatch.setattr("holistic_cam_plugin.models.network.is_reachable", lambda _: True)
    error = refusal(name=None)
    assert "resnet50" in error
    assert "--weights" in error
    assert "--model digits" in error


def test_a_pickle_with_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"state": Harmful()}, tmp_path / "harmful.pth")
    error = refusal(tmp_path / "harmful.pth")
    assert "refused" in error
    assert "state_dict" in error
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_state_dicts_in_a_wrapping_are_unwrapped(weights, tmp_path, key, prefix):
    state = torch.load(weights, weights_only=True)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, key: wrapped}, tmp_path / "checkpoint.pth")
    assert same_weights(load(tmp_path / "checkpoint.pth").model, state)


def test_weights_of_another_model(weights):
    assert "does not fit squeezenet1_0: Error(s) in loading state_dict" in refusal(weights, name="squeezenet1_0")


def test_wrong_files(weights, tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    (tmp_path / "short.txt").write_text("ant\nbee\n")
    assert "did you mean three_classes.pth?" in refusal(weights.parent / "three_class.pth")
    assert "refused" in refusal(tmp_path / "text.pth")
    assert "cannot be read as a file of weights" in refusal(tmp_path / "empty.pth")
    assert "holds no state dict" in refusal(tmp_path / "list.pth")
    assert "names 2 classes" in refusal(weights, tmp_path / "short.txt")
    assert "cannot be read" in refusal(weights, tmp_path / "none.txt")


def test_wrong_names():
    assert "did you mean resnet50" in refusal(name="resnet5")


@pytest.mark.parametrize("name", ["quantum", "meta", "xla", "hpu", "privateuseone", "cpu:-1", ""])
def test_devices_that_can_not_be_used(name):
    with pytest.raises(UsageError, match=f"the device '{name}' cannot be used: ") as error:
        choose_device(name)
    assert len(str(error.value)) < 560


def test_labels_written_by_a_windows_editor(weights, tmp_path):
    (tmp_path / "labels.txt").write_text("ant\nbee\nhen\n", encoding="utf-8-sig")
    assert load(weights, tmp_path / "labels.txt").classes == list(CLASSES)


def test_a_download_cut_short_is_one_line(monkeypatch):
    def cut(*_, **__):
        raise RuntimeError('invalid hash value (expected "0676ba61", got "af0d")')

    monkeypatch.setattr(torchvision.models, "get_model", cut)
    monkeypatch.setattr("holistic_cam_plugin.models.network.is_reachable", lambda _: True)
    assert "resnet50 cannot be loaded (invalid hash value" in refusal(name=None)


def test_the_bundled_model(weights, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    assert load(name="digits", labels=tmp_path / "names.txt").classes == list("abcdefghij")
    assert "digits has weights of its own: leave out --weights" in refusal(weights, name="digits")
    assert "did you mean digits" in refusal(name="digit")
    classifier = load(name="digits")
    assert classifier.name == "digits"
    assert classifier.preprocessing == ((0.5,) * 3, (0.5,) * 3, (224, 224), 224, "bilinear", "bundled")
    assert classifier.classes == [f"digit {digit}" for digit in range(10)]
    assert classifier.model(torch.zeros(1, 3, *classifier.preprocessing.size)).shape == (1, 10)


def test_other_layers(weights):
    classifier = load(weights)
    assert classifier.at(["features.12"]).layer_names == ["features.12"]
    message = "the model has no layer 'features.13'; did you mean features.3, features.1 or features.12? (the default"
    with pytest.raises(UsageError, match=re.escape(message)):
        classifier.at(["features.13"])


def test_a_repr_is_short(weights):
    assert len(repr(load(weights))) < 400
