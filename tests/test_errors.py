"""What a user can correct is told in one line, with near names."""

from __future__ import annotations

import os

import pytest
import torch

from holistic_cam_plugin.errors import UsageError, check_file, describe_error, near_matches, out_of_memory


def test_a_message_is_one_line():
    assert str(UsageError("first\n  second\tthird")) == "first second third"
    assert str(UsageError(ValueError("a\nb"))) == "a b"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet5", "; did you mean ResNet50?"),
        ("RESNET50", "; did you mean ResNet50?"),
        ("laye1", "; did you mean layer1, layer12 or layer2?"),
        ("zzz", ""),
    ],
)
def test_near_names_are_given_as_they_are_written(name, hint):
    assert near_matches(name, ["ResNet50", "layer1", "layer2", "layer12", "vgg"]) == hint


def test_files(tmp_path):
    (tmp_path / "photo.jpg").touch()
    check_file(tmp_path / "photo.jpg")
    with pytest.raises(UsageError, match=r"phoot\.jpg does not exist; did you mean photo\.jpg\?"):
        check_file(tmp_path / "phoot.jpg")
    with pytest.raises(UsageError, match=r"none/photo\.jpg does not exist$"):
        check_file(tmp_path / "none" / "photo.jpg")
    with pytest.raises(UsageError, match="is a folder, not a file"):
        check_file(tmp_path)
    with pytest.raises(UsageError, match=r"nnn\.jpg cannot be read: File name too long"):
        check_file(tmp_path / ("n" * 300 + ".jpg"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UsageError, match=r"pipe\.jpg is not a regular file"):
        check_file(tmp_path / "pipe.jpg")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("short"), "short"),
        (ValueError("first\nsecond"), "first"),
        (MemoryError(), "MemoryError"),
        (OSError(13, "Permission denied", "/home/me/x"), "Permission denied"),
        (OSError("truncated"), "truncated"),
        (ValueError("x" * 501), "x" * 499 + "…"),
    ],
)
def test_what_other_libraries_say_is_kept_short(error, said):
    assert describe_error(error) == said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("full"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 12 bytes"), True),
        (UsageError("Grad-CAM cannot explain layer4: MemoryError"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_errors_of_memory(error, expected):
    assert out_of_memory(error) is expected
