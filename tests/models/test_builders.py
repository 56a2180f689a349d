"""A model from a file is the model that torchvision builds for its own weights."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights, vision_transformer

from holistic_cam_plugin import HolisticCAM
from holistic_cam_plugin.models import build
from holistic_cam_plugin.models.build import build_model

QUIET = {"init_weights": False}


@pytest.fixture(autouse=True)
def no_initialization(monkeypatch):
    """The tests load all weights; torchvision's own initialization takes most of the time."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor.detach().zero_())


def draw_weights(model):
    """Random weights under which no output is lost: torchvision's own initialization of GoogLeNet is next to 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
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
        return draw_weights(get_model(name, weights=None, **options))


def outputs(model, size):
    with torch.inference_mode():
        return model.eval()(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("name", "layer"), [("googlenet", "inception5b"), ("inception_v3", "Mixed_7c")])
def test_torchvisions_file_gives_torchvisions_maps(name, layer, published, tmp_path):
    state = random_state(name, **QUIET)
    torch.save(state, tmp_path / "official.pth")
    theirs = published(name, get_model_weights(name).DEFAULT, state)
    ours = build_model(name, tmp_path / "official.pth")
    assert len(ours.classes) == 1000
    assert torch.equal(outputs(ours.model, 128), outputs(theirs, 128))
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    target = [lambda output: output[3]]
    maps = [HolisticCAM(m, [m.get_submodule(layer)], sizes=[96, 128])(images, target) for m in (ours.model, theirs)]
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("heads", [True, False])
def test_ones_own_weights_are_taken_as_they_are(name, heads, tmp_path):
    state = random_state(name, num_classes=3, aux_logits=heads, **QUIET)
    torch.save(state, tmp_path / "own.pth")
    ours = build_model(name, tmp_path / "own.pth")
    theirs = get_model(name, weights=None, num_classes=3, aux_logits=heads, **QUIET).eval()
    theirs.load_state_dict(state)
    assert ours.classes is None
    assert ours.model.state_dict().keys() == state.keys()
    assert torch.equal(outputs(ours.model, 128), outputs(theirs, 128))


@pytest.mark.parametrize("which", ["IMAGENET1K_V1", "IMAGENET1K_SWAG_E2E_V1"])
def test_a_transformer_of_the_files_image_size(which, published, tmp_path, monkeypatch):
    build = vision_transformer._vision_transformer
    monkeypatch.setattr(
        vision_transformer, "_vision_transformer", lambda **options: build(**options | {"num_layers": 2})
    )
    entry = get_model_weights("vit_b_16")[which]
    state = random_state("vit_b_16", image_size=entry.meta["min_size"][0])
    torch.save(state, tmp_path / "vit.pth")
    ours = build_model("vit_b_16", tmp_path / "vit.pth")
    assert ours.size == entry.transforms().crop_size[0]
    assert torch.equal(outputs(ours.model, ours.size), outputs(published("vit_b_16", entry, state), ours.size))


def test_a_file_with_torchvisions_name_is_preprocessed_as_torchvision_does(tmp_path):
    entries = get_model_weights("mobilenet_v2")
    state = get_model("mobilenet_v2", weights=None).state_dict()
    for entry in entries:
        path = tmp_path / Path(entry.url).name
        torch.save(state, path)
        assert build_model("mobilenet_v2", path).processor.resize_size[0] == entry.transforms().resize_size[0]


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
    assert torch.equal(outputs(build_model("densenet121", tmp_path / "densenet.pth").model, 64),
                       outputs(theirs, 64))  # fmt: skip


# Builders with something of their own, but for those that hold hundreds of megabytes.
FAMILIES = (
    "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small",
    "regnet_x_400mf", "shufflenet_v2_x0_5", "swin_t", "swin_v2_t",
)  # fmt: skip


ORDINARY = ("densenet121", "inception_v3", "maxvit_t")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ORDINARY else pytest.mark.campaign) for name in FAMILIES]
)
def test_every_family_comes_back_from_a_file(name, published, monkeypatch):
    state = random_state(name, **(QUIET if name in ("googlenet", "inception_v3") else {}))
    monkeypatch.setattr(build, "read_state_dict", lambda path: dict(state))
    ours = build_model(name, Path("saved.pth"))
    theirs = published(name, get_model_weights(name).DEFAULT, state)
    assert not any(tensor.is_meta for tensor in ours.model.state_dict().values())
    size = 224 if name == "maxvit_t" else 96  # MaxViT takes one size alone
    assert torch.equal(outputs(ours.model, size), outputs(theirs, size))
