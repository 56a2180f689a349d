"""Weights files changed at random: weights, or one line that names the file, and nothing else is said.

`HOSTILE_SECONDS` is how long to go on, in all.
"""

from __future__ import annotations

import collections
import io
import warnings

import pytest
import torch

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import load_classifier
from holistic_cam_plugin.models.weights import read_state_dict
from tests.cli.notes import drop_notes
from tests.hostile.mutation import SECONDS, mutants
from tests.models.files import MODEL, make_photo, make_weights

pytestmark = pytest.mark.campaign


def small_state():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    return layers.state_dict()


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def legacy(value):
    return saved(value, _use_new_zipfile_serialization=False)


FILES = {
    "archive": saved(small_state()),
    "legacy file": legacy(small_state()),
    "legacy checkpoint": legacy({"epoch": 3, "state_dict": dict(small_state()), "best": 0.5}),
    "archive of odd types": saved(
        collections.OrderedDict((f"module.{n}", t.to(torch.bfloat16)) for n, t in small_state().items())
    ),
}


def one_line(error, path):
    assert f"{path}" in error
    assert "\n" not in error
    assert len(error) < len(f"{path}") + 700


@pytest.mark.parametrize("title", FILES)
def test_changed_files(tmp_path, capfd, title):
    path = tmp_path / "weights.pth"
    path.write_bytes(FILES[title])
    assert read_state_dict(path)
    for number, data in enumerate(mutants(FILES[title], title, SECONDS / (len(FILES) + 1))):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                state = read_state_dict(path)
            except UsageError as error:
                one_line(str(error), path)
                continue
        for name, tensor in state.items():
            assert isinstance(name, str), number
            assert isinstance(tensor, torch.Tensor), number
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_legacy", [False, True])
def test_changed_weights_of_a_model(tmp_path, capfd, is_legacy):
    state = torch.load(make_weights(tmp_path), weights_only=True)
    whole = saved(state, _use_new_zipfile_serialization=not is_legacy)
    path = tmp_path / "weights.pth"
    for data in mutants(whole, is_legacy, SECONDS / (len(FILES) + 1) / 2):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                model = load_classifier(MODEL, path, None, "cpu").model
            except UsageError as error:
                one_line(str(error), path)
                continue
        for tensor in model.state_dict().values():
            assert bool(tensor.isfinite().all())
            assert tensor.dtype == torch.float32
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:a saliency map is constant")
def test_changed_weights_on_the_command_line(tmp_path, capfd):
    whole = make_weights(tmp_path).read_bytes()
    path, photo = tmp_path / "weights.pth", make_photo(tmp_path)
    options = ["--model", MODEL, "--weights", str(path), "--layers", "features.12", "--method", "gradcam"]
    for data, _ in zip(mutants(whole, "command line", 0), range(6), strict=False):
        path.write_bytes(data)
        code = main([str(photo), *options, "--output", str(tmp_path / "out")])
        out, err = capfd.readouterr()
        assert code in (0, 2)
        assert drop_notes(err).count("\n") == (code == 2), err
        assert ("predicted" in out) == (code == 0)
