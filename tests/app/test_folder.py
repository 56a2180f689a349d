"""The temporary folder, and those of explorers that were killed."""

from __future__ import annotations

import tempfile

import pytest
from filelock import FileLock

from holistic_cam_plugin.app.folder import make_temporary_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make_left(temporary, name):
    """A folder as a killed explorer leaves it."""
    folder = temporary / name
    (folder / "some" / "upload").mkdir(parents=True)
    (folder / "lock").touch()
    return folder


def test_it_is_there_during_the_block():
    with make_temporary_folder() as folder:
        (folder / "upload.png").touch()
    assert not folder.exists()


def test_folders_that_nobody_holds_are_removed(temporary):
    left = make_left(temporary, "holistic-cam-app-left")
    with make_temporary_folder():
        assert not left.exists()


def test_folders_of_others_stay(temporary):
    held, plain = make_left(temporary, "holistic-cam-app-held"), make_left(temporary, "plain")
    young = temporary / "holistic-cam-app-young"  # its explorer has made no lock yet
    young.mkdir()
    link = temporary / "holistic-cam-app-link"
    link.symlink_to(plain)
    with FileLock(held / "lock"), make_temporary_folder(), make_temporary_folder():
        pass
    assert (held / "some" / "upload").is_dir()
    assert (plain / "some" / "upload").is_dir()
    assert young.is_dir()
    assert link.is_symlink()
