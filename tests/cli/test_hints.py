"""What is given in the place of an image or a command, and what to do instead."""

from __future__ import annotations

import pytest

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.cli import figures, hints


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("photos", "photos is a folder, not a file: holistic-cam batch photos --output maps explains its images"),
        ("https://a.org/b.jpg", "https://a.org/b.jpg is an address, not a file: download the image first, and name"),
        ("-", "an image cannot be read from standard input: write it to a file, and name the file"),
        ("bach photos", "bach is neither a command nor a file; did you mean batch?"),
        ("reprot", "reprot is neither a command nor a file; did you mean report?"),
        ("photo", "photo does not exist"),
        ("--model resnet18 vgg11 --weights a.pth --list-layers", "--weights names 1 files for 2 models: name one per"),
    ],
)
def test_a_hint_is_one_line(capsys, command, line):
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"holistic-cam: error: {line}")


def test_a_file_with_the_name_of_a_mistyped_command_is_an_image(here, capsys):
    (here / "bach").write_bytes(b"no image")
    assert main(["bach"]) == 2
    assert "bach cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"%PDF-1.7\n", "it is a PDF: save the page as a PNG first"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "convert it to JPEG or PNG first"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "convert it to JPEG or PNG first"),
    ],
)
def test_formats_that_cannot_be_read(here, capsys, start, words):
    (here / "photo.jpg").write_bytes(start)  # phones name them so
    assert main(["photo.jpg"]) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_layer_of_a_batch(here, capsys):
    (here / "photos" / "a.png").touch()
    assert main(["batch", "photos", "--output", "maps", "--model", "digits", "--layers", "foo"]) == 2
    err = capsys.readouterr().err
    assert "the model has no layer 'foo' (the default layers are layer1, layer2, layer3, layer4; holistic-cam" in err
    assert "--model digits --list-layers lists all" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--model timm/resnet18", "huggingface.co cannot be reached: timm/resnet18 is taken from the cache"),
        ("", "download.pytorch.org cannot be reached: resnet50 is taken from the cache"),
        ("--model resnet18 hf/google/vit", "hf/google/vit is taken from the cache"),
        ("--model resnet18", ""),
        ("--model hf/./folder", ""),
        ("--model digits", ""),
        ("--model package.module:build", ""),
        ("--model timm/resnet18 --weights photo.jpg", ""),
    ],
)
def test_without_network_a_line_comes_before_anything_is_imported(here, capsys, monkeypatch, options, told):
    (here / "photo.jpg").touch()
    (here / "hub" / "checkpoints").mkdir(parents=True)
    (here / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    monkeypatch.setenv("TORCH_HOME", str(here))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(hints, "is_reachable", lambda _: False)
    monkeypatch.setattr(figures, "explain_images", lambda _: None)
    assert main(["photo.jpg", *options.split()]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == bool(told)
    assert told in err
