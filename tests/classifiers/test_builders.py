"""A model from a file is the model that torchvision builds for its own weights."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.classifiers import zoo
from holistic_cam_plugin.classifiers.models import load_classifier

QUIET = {"init_weights": False}


def spread(model):
    """Random weights under which no output is lost: torchvision's own initialisation of GoogLeNet is next to 0."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight)
    return model.state_dict()


@pytest.fixture
def published(monkeypatch):
    """torchvision's model with its own weights, these being the given ones, without a download."""

    def build(name, entry, state):
        monkeypatch.setattr(type(entry), "get_state_dict", lambda *_, **__: copy.copy(state))
        return get_model(name, weights=entry).eval()

    return build


def random_state(name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return spread(get_model(name, weights=None, **options))


def outputs(model, size):
    with torch.inference_mode():
        return model(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("name", "layer"), [("googlenet", "inception5b"), ("inception_v3", "Mixed_7c")])
def test_torchvisions_file_gives_torchvisions_maps(name, layer, published, tmp_path):
    state = random_state(name, **QUIET)
    torch.save(state, tmp_path / "official.pth")
    theirs = published(name, get_model_weights(name).DEFAULT, state)
    ours = load_classifier(name, tmp_path / "official.pth", None, "cpu")
    assert len(ours.classes) == 1000
    assert torch.equal(outputs(ours.model, 299), outputs(theirs, 299))
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    target = [lambda output: output[3]]
    maps = [HolisticCAM(m, [m.get_submodule(layer)], sizes=[128, 160])(images, target) for m in (ours.model, theirs)]
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("heads", [True, False])
def test_ones_own_weights_are_taken_as_they_are(name, heads, tmp_path):
    state = random_state(name, num_classes=3, aux_logits=heads, **QUIET)
    torch.save(state, tmp_path / "own.pth")
    ours = load_classifier(name, tmp_path / "own.pth", None, "cpu")
    theirs = get_model(name, weights=None, num_classes=3, aux_logits=heads, **QUIET).eval()
    theirs.load_state_dict(state)
    assert ours.classes == ["class 0", "class 1", "class 2"]
    assert ours.model.state_dict().keys() == state.keys()
    assert torch.equal(outputs(ours.model, 128), outputs(theirs, 128))


@pytest.mark.parametrize("which", ["IMAGENET1K_V1", "IMAGENET1K_SWAG_E2E_V1"])
def test_a_transformer_of_the_files_image_size(which, published, tmp_path):
    entry = get_model_weights("vit_b_16")[which]
    state = random_state("vit_b_16", image_size=entry.meta["min_size"][0])
    torch.save(state, tmp_path / "vit.pth")
    ours = load_classifier("vit_b_16", tmp_path / "vit.pth", None, "cpu")
    (size, _) = ours.preprocessing.size
    assert size == entry.transforms().crop_size[0]
    assert torch.equal(outputs(ours.model, size), outputs(published("vit_b_16", entry, state), size))


def test_a_file_with_torchvisions_name_is_preprocessed_as_torchvision_does(tmp_path):
    entries = get_model_weights("mobilenet_v2")
    state = get_model("mobilenet_v2", weights=None).state_dict()
    for entry in entries:
        path = tmp_path / Path(entry.url).name
        torch.save(state, path)
        assert (
            load_classifier("mobilenet_v2", path, None, "cpu").preprocessing.resize == entry.transforms().resize_size[0]
        )


def test_names_of_the_first_densenets(published, tmp_path):
    state = random_state("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet.pth")
    theirs = published("densenet121", get_model_weights("densenet121").DEFAULT, state)
    assert torch.equal(outputs(load_classifier("densenet121", tmp_path / "densenet.pth", None, "cpu").model, 64),
                       outputs(theirs, 64))  # fmt: skip


# Builders with something of their own, but for those that hold hundreds of megabytes.
FAMILIES = (
    "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small",
    "regnet_x_400mf", "shufflenet_v2_x0_5", "swin_t", "swin_v2_t",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_back_from_a_file(name, published, monkeypatch):
    state = get_model(name, weights=None, **(QUIET if name in ("googlenet", "inception_v3") else {})).state_dict()
    monkeypatch.setattr(zoo, "read_state_dict", lambda path: dict(state))
    ours = load_classifier(name, Path("saved.pth"), None, "cpu")
    theirs = published(name, get_model_weights(name).DEFAULT, state)
    assert not any(tensor.is_meta for tensor in ours.model.state_dict().values())
    size = ours.preprocessing.size[0]
    assert torch.equal(outputs(ours.model, size), outputs(theirs, size))
