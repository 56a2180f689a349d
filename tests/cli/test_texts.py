"""Texts as classes on the command line, in batch jobs and in the explorer: the Python interface's maps."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file
from transformers import AutoModel

from holistic_cam_plugin import ClassHolisticCAM, explainable
from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.app.snippet import Source, write_snippet
from holistic_cam_plugin.batch.record import read_record
from holistic_cam_plugin.methods import Method
from tests.models.two_towers import TEXTS, make_siglip, save_folder

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask ")

SIZES = ["--methods", "classholisticcam", "--sizes", "64", "96"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model of images and texts as a user has it."""
    monkeypatch.chdir(tmp_path)
    save_folder(tmp_path / "clip")
    return tmp_path


def compute_map(here, photo, target, layer=-1):
    found = explainable(AutoModel.from_pretrained(here / "clip"), text=TEXTS)
    cam = ClassHolisticCAM(found.model, [found.target_layers[layer]], **found.options | {"sizes": [64, 96]})
    images = found.preprocessing(Image.open(photo).convert("RGB"))
    return found.layer_names[layer], cam(images, [ClassifierOutputTarget(target)])[0]


def test_an_image(here, photo, capsys):
    command = [str(photo), "--model", "hf/./clip", "--text", *TEXTS, *SIZES, "--target", TEXTS[1], "--save-array"]
    assert main(command) == 0
    for layer in range(4):
        name, expected = compute_map(here, photo, 1, layer)
        saved = np.load(here / "output" / f"photo_classholisticcam_{name}.npy")
        np.testing.assert_allclose(saved, expected, atol=1e-4)
    out = capsys.readouterr().out
    assert any(f"predicted: {text} (" in out for text in TEXTS)


def test_several_texts_of_siglip(here, photo, capsys):
    save_folder(here / "siglip", make_siglip())
    command = [str(photo), "--model", "hf/./siglip", "--text", *TEXTS, "--target", "0", "2", "--methods", "gradcam"]
    assert main(command) == 0
    assert (here / "output" / "photo_holistic_cam.png").exists()


def test_the_layers(here, capsys):
    assert main(["--model", "hf/./clip", "--list-layers", "--text", *TEXTS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hf/./clip at 64x64 px, takes any size; * marks the default layers"
    assert all(line.split()[-4 if "after" in line else 0] and "vision_model." in line for line in lines[1:])


def test_a_batch_and_its_restart(here, photo, capsys):
    (here / "in").mkdir()
    photo.rename(here / "in" / "photo.png")
    command = [
        "batch",
        "in",
        "--output",
        "maps",
        "--model",
        "hf/./clip",
        *SIZES,
        "--dtype",
        "float32",
        "--workers",
        "0",
    ]
    assert main([*command, "--text", *TEXTS]) == 0
    (row,) = csv.DictReader((here / "maps" / "manifest.csv").open())
    assert row["class"] in TEXTS
    name, expected = compute_map(here, here / "in" / "photo.png", int(row["target"]))
    assert row["layer"] == name
    with np.load("maps/maps/photo.png.npz") as archive:
        np.testing.assert_allclose(archive["maps"][0, 0, 0], expected, atol=1e-4)
    with read_record(here / "maps") as record:
        parameters = record.parameters
    assert parameters["text"] == TEXTS
    assert "transformers" in parameters["versions"]
    capsys.readouterr()
    assert main([*command, "--text", *TEXTS]) == 0
    assert "1 were done already" in capsys.readouterr().out
    assert main([*command, "--text", *TEXTS[:2]]) == 2
    error = capsys.readouterr().err
    assert "holds maps made with other parameters" in error
    assert "text (a green nine a red three" in error
    assert main(["report", "maps"]) == 0
    assert row["class"] in (here / "maps" / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], 'hf/./clip compares images with texts: name them, such as --text "a dog" "a cat"'),
        (["--text", "a nine", ""], "--text: text 1 is empty"),
        (["--text", "a nine", "a nine"], "--text: the text 'a nine' is given twice"),
        (["--text", "a nine " * 5], "tokens, but the model takes at most 10"),
        (["--text", "a nine", "--labels", "clip/config.json"], "--labels and --text both name the classes"),
        (["--text", "a nine", "--target", "a three"], "the model has no class 'a three'"),
    ],
)
@pytest.mark.parametrize("command", [[], ["batch", "--output", "maps"]])
def test_mistakes_are_one_line(here, photo, capsys, command, options, message):
    options = ["--model", "hf/./clip", *options]
    (here / "in").mkdir()
    shutil.copy(photo, here / "in")
    given = [command[0], "in", *command[1:]] if command else [str(photo)]
    assert main([*given, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_texts_for_a_classifier(here, photo, capsys):
    assert main([str(photo), "--model", "digits", "--text", "a nine"]) == 2
    assert (
        "digits has classes of its own, and compares images with no texts: leave out --text" in capsys.readouterr().err
    )
    assert main(["--text", "a nine"]) == 2
    assert "--text needs an image" in capsys.readouterr().err


def test_a_folder_without_a_tokenizer(here, photo, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (here / "clip" / name).unlink()
    assert main([str(photo), "--model", "hf/./clip", "--text", *TEXTS]) == 2
    assert "hf/./clip has no tokenizer: save it there, too" in capsys.readouterr().err


def test_the_script_of_the_explorer(here, photo):
    source = Source("hf/./clip", device="cpu", text=TEXTS)
    name, expected = compute_map(here, photo, 2)
    assert source.load().classes == TEXTS
    found: dict[str, object] = {}
    exec(write_snippet(source, Method("classholisticcam", {"sizes": [64, 96]}), name, 2, TEXTS[2]), found)
    np.testing.assert_allclose(found["saliency_map"], expected, atol=1e-4)


@pytest.fixture
def named(tmp_path):
    """A small model that open_clip knows by name, and a file of its weights."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    vision = {"layers": 4, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}
    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    path = tmp_path / "tiny-of-test.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("tiny-of-test").eval()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "w.safetensors")
    return model


def test_a_model_of_open_clip(here, photo, named, capsys):
    import open_clip

    command = ["--model", "open_clip/tiny-of-test", "--weights", "w.safetensors", "--methods", "gradcam"]
    assert main([str(photo), *command, "--text", "a dog", "a cat", "--target", "a cat", "--save-array"]) == 0
    assert "predicted: a " in capsys.readouterr().out
    source = Source("open_clip/tiny-of-test", here / "w.safetensors", device="cpu", text=["a dog", "a cat"])
    classifier = source.load()
    images = torch.rand(2, 3, 64, 64)
    tokens = open_clip.get_tokenizer("tiny-of-test")(["a dog", "a cat"])
    torch.testing.assert_close(classifier.model(images), named.get_logits(images, tokens)[0])
    assert classifier.preprocessing.source == "open_clip"
    assert main([str(photo), *command, "--text", "a dog " * 20]) == 2
    assert "has more tokens than the 12 that the model takes" in capsys.readouterr().err


def test_wrong_names_of_open_clip(here, photo, named, capsys):
    for name, message in {
        "ViT-B-3": "open_clip has no model called 'ViT-B-3'; did you mean ViT-B-32",
        "ViT-B-32/laion": "open_clip has no weights 'laion' of ViT-B-32: it has openai, ",
        "tiny-of-test": "open_clip has no weights '' of tiny-of-test: it has none",
    }.items():
        assert main([str(photo), "--model", f"open_clip/{name}", "--text", "a dog", "a cat"]) == 2
        assert message in capsys.readouterr().err


def test_published_weights_are_asked_of_open_clip(monkeypatch, named):
    import open_clip

    from holistic_cam_plugin.models.classifier import load_classifier

    asked = []

    def create(name, **options):
        asked.append((name, options))
        return named

    tokenizer = open_clip.get_tokenizer("tiny-of-test")
    monkeypatch.setattr(open_clip, "create_model", create)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: tokenizer)
    for name in ("ViT-B-32", "ViT-B-32/laion2b_s34b_b79k"):
        load_classifier(f"open_clip/{name}", device="cpu", text=["a dog"])
    assert asked == [
        ("ViT-B-32", {"pretrained": "openai", "force_quick_gelu": True}),
        ("ViT-B-32", {"pretrained": "laion2b_s34b_b79k", "force_quick_gelu": False}),
    ]


def test_the_explorer_needs_a_model_for_texts(capsys):
    assert main(["app", "--text", "a nine"]) == 2
    assert "--weights, --labels and --text belong to a model" in capsys.readouterr().err
