"""Weights files: what is no use is refused in one line, before anything is built of it."""

from __future__ import annotations

import collections
import warnings

import pytest
import torch
from safetensors.torch import save_file

from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import load_classifier
from tests.models.files import MODEL, make_weights

HEAD = "classifier.1.weight"


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return torch.load(make_weights(tmp_path_factory.mktemp("weights")), weights_only=True)


@pytest.fixture
def refusal(tmp_path):
    """What is said of an object saved as a weights file, in one line that names the file."""

    def refuse(saved, **options):
        path = tmp_path / "given.pth"
        if isinstance(saved, bytes):
            path.write_bytes(saved)
        else:
            torch.save(saved, path, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing else on the terminal
            with pytest.raises(UsageError) as error:
                load_classifier(MODEL, path, None, "cpu")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 700
        return str(error.value)

    return refuse


def test_keys_that_are_no_names(state, refusal):
    assert "holds no state dict" in refusal({5: torch.ones(1), **state})
    assert "holds no state dict" in refusal({"state_dict": {("a", 1): torch.ones(1)}})
    assert "holds no state dict" in refusal({**state, "epoch": 3})


@pytest.mark.filterwarnings("ignore:.*sparse:UserWarning", "ignore:.*quantiz:DeprecationWarning", "ignore:.*quantiz")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.to("meta"), "meta tensors"),
        (lambda x: x.to_sparse(), "Sparse"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), f"{HEAD} is torch.qint8, not torch.float32"),
        (lambda x: x.to(torch.int8), f"{HEAD} is torch.int8, not torch.float32"),
        (lambda x: x.to(torch.complex64), f"{HEAD} is torch.complex64, not torch.float32"),
        (lambda x: x[:1].expand(10**9, -1, -1, -1), f"size mismatch for {HEAD}"),
        (lambda x: torch.tensor(1.0), f"size mismatch for {HEAD}"),
    ],
)
def test_tensors_that_are_not_weights(state, refusal, change, reason):
    error = refusal({**state, HEAD: change(state[HEAD])})
    assert f"does not fit {MODEL}: " in error
    assert reason in error


def test_the_message_of_load_state_dict(state, refusal):
    renamed = {name.replace("classifier.1.weight", "classifier.9.weight"): tensor for name, tensor in state.items()}
    assert refusal(renamed).endswith(
        f"does not fit {MODEL}: Error(s) in loading state_dict for SqueezeNet: Missing key(s) in state_dict: "
        f'"{HEAD}". Unexpected key(s) in state_dict: "classifier.9.weight".'
    )
    assert refusal({"stem.weight": torch.ones(3), "classifier.1.bias": torch.ones(3)}).endswith(" ...")


def test_safetensors_keep_no_order(state, tmp_path):
    path = tmp_path / "own.safetensors"
    save_file(state, path)
    classifier = load_classifier(MODEL, path, None, "cpu")
    assert classifier.classes == ["class 0", "class 1", "class 2"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in classifier.model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(state, refusal, value):
    spoiled = state[HEAD].clone()
    spoiled[1, 2] = value
    error = refusal({**state, HEAD: spoiled})
    assert f"NaN or infinite values in {HEAD}" in error


def test_weights_beyond_float32(state, refusal):
    assert "NaN or infinite" in refusal({**state, HEAD: state[HEAD].double() + 1e300})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_taken(state, tmp_path, dtype):
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "cast.pth")
    model = load_classifier(MODEL, tmp_path / "cast.pth", None, "cpu").model
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].to(dtype).float())


@pytest.mark.parametrize("legacy", [True, False])
def test_files_cut_short(state, refusal, tmp_path, legacy):
    torch.save(state, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)
    data = (tmp_path / "whole.pth").read_bytes()
    for length in (0, 1, 100, 1000, len(data) // 2, len(data) - 1000):
        assert refusal(data[:length])


def test_a_state_dict_with_odd_metadata(state, tmp_path):
    odd = collections.OrderedDict(state)
    odd._metadata = 5
    torch.save(odd, tmp_path / "odd.pth")
    assert load_classifier(MODEL, tmp_path / "odd.pth", None, "cpu").classes == ["class 0", "class 1", "class 2"]


def test_a_torchscript_archive(refusal, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert "torch.load" in refusal((tmp_path / "script.pt").read_bytes())


def test_more_classes_than_memory_holds_are_a_misfit(refusal):
    error = refusal({"features.0.weight": torch.zeros(1), "classifier.1.bias": torch.zeros(10**7)})
    assert f"does not fit {MODEL}" in error


def test_weights_that_do_not_fit_a_regnet(state, tmp_path):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="does not fit regnet_y_400mf"):
        load_classifier("regnet_y_400mf", tmp_path / "other.pth", None, "cpu")
