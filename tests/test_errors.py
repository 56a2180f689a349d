"""What a user can correct is told in one line, with near names."""

from __future__ import annotations

import os

import pytest

from holistic_cam_plugin.errors import UsageError, check_file, near_matches, reason


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
    with pytest.raises(UsageError, match=r"nnn\.jpg can't be read: File name too long"):
        check_file(tmp_path / ("n" * 300 + ".jpg"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UsageError, match=r"pipe\.jpg is no regular file"):
        check_file(tmp_path / "pipe.jpg")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("short"), "short"),
        (ValueError("first\nsecond"), "first"),
        (MemoryError(), "MemoryError"),
        (ValueError("x" * 500), "x" * 199 + "…"),
    ],
)
def test_what_other_libraries_say_is_kept_short(error, said):
    assert reason(error) == said
