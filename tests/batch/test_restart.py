"""Restarts: what is skipped, made again or rejected; a full disk; two runs in one folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch import parameters
from holistic_cam_plugin.batch.journal import Journal
from holistic_cam_plugin.batch.parameters import claim_folder
from holistic_cam_plugin.files import remove_parts, write_whole
from tests.batch.batch_tools import QUICK, make_picture, make_pictures, rows, tree

pytestmark = pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero")


@pytest.fixture
def run(run, tmp_path):
    """The same, with six pictures."""
    make_pictures(tmp_path / "in", 6)
    return run


def test_a_restart_makes_what_is_missing_or_damaged_and_nothing_else(run, tmp_path):
    assert "6 images explained" in run("--batch-size", "4")[1]
    output = tmp_path / "output"
    whole = tree(output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")}
    assert "0 images explained" in run("--batch-size", "4")[1]
    missing, damaged = output / "maps" / "picture 0.jpg.npz", output / "maps" / "deeper" / "picture 3.jpg.npz"
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    _, out, _ = run("--batch-size", "4")
    assert "2 images explained" in out
    assert "4 were done already" in out
    assert tree(output) == whole
    again = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert again == {missing, damaged}


def test_random_methods_draw_the_same_again(run, tmp_path):
    run("--methods", "randomcam")
    whole = tree(tmp_path / "output")
    (tmp_path / "output" / "maps" / "picture 2.jpg.npz").unlink()
    assert "1 images explained" in run("--methods", "randomcam")[1]
    assert tree(tmp_path / "output") == whole


def test_a_changed_list_of_images(run, tmp_path):
    run()
    make_picture(tmp_path / "in" / "new.jpg", 9)
    make_picture(tmp_path / "in" / "picture 0.jpg", 10, size=(50, 50))
    assert "2 images explained" in run()[1]
    assert len(rows(tmp_path / "output")) == 7
    assert [row["width"] for row in rows(tmp_path / "output") if row["file"] == "picture 0.jpg"] == ["50"]
    (tmp_path / "in" / "new.jpg").unlink()
    assert "0 images explained" in run()[1]
    assert len(rows(tmp_path / "output")) == 7


def test_failures_are_tried_again(run, tmp_path):
    bad = tmp_path / "in" / "bad.jpg"
    bad.touch()
    code, out, _ = run("--batch-size", "3")
    assert code == 1
    assert "1 failed, listed in" in out
    assert run("--batch-size", "3")[0] == 1
    assert [row["file"] for row in rows(tmp_path / "output", "errors.csv")] == ["bad.jpg"]
    make_picture(bad, 7)
    code, out, _ = run("--batch-size", "3")
    assert code == 0
    assert "1 images explained" in out
    assert rows(tmp_path / "output", "errors.csv") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sizes", "64", "96"), "sizes (64, now 64 96)"),
        (("--layers", "layer3"), "layers (layer4, now layer3)"),
        (("--methods", "gradcam"), "methods (classholisticcam, now gradcam)"),
        (("--dtype", "float32"), "dtype (float16, now float32)"),
        (("--batch-size", "2"), "batch_size (1, now 2)"),
        (("--target", "3"), "target (predicted, or the CSV's, now 3)"),
        (("--no-crop",), "crop (True, now False)"),
        (("--threads", "2"), "threads (1, now 2)"),
        (("--amp",), "amp (False, now True)"),
    ],
)
def test_changed_parameters_are_refused(run, tmp_path, options, message):
    run()
    whole = tree(tmp_path / "output")
    code, out, err = run(*options)
    assert (code, out) == (2, "")
    assert f"holds maps made with other parameters: {message}. Restore them, or choose another --output" in err
    assert tree(tmp_path / "output") == whole


def test_changed_weights_and_versions_are_refused(run, monkeypatch):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(parameters.metadata, "version", lambda package: "9.9" if package == "torch" else "0")
        assert "torch (" in run()[2]
    load = "holistic_cam_plugin.models.build.load_demo_model"
    monkeypatch.setattr(load, lambda: __import__("holistic_cam_plugin").demo.DigitsResNet().eval())
    assert "other parameters: weights (" in run()[2]


def test_a_restart_takes_the_threads_of_the_folder(run, tmp_path):
    run()
    options = [option for option in QUICK if option not in ("--threads", "1")]
    assert main(["batch", str(tmp_path / "in"), "--output", str(tmp_path / "output"), *options]) == 0


def test_an_uninstalled_package_has_no_version(monkeypatch):
    def unknown(package):
        raise parameters.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(parameters.metadata, "version", unknown)
    assert set(parameters.read_package_versions().values()) == {"not installed"}


def test_folders_of_something_else_are_refused(run, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    (output / "thesis.tex").touch()
    assert "contains files but no parameters.json: choose an empty or new --output" in run()[2]
    (output / "parameters.json").write_text("{")
    assert "cannot read " in run()[2]
    (tmp_path / "file").touch()
    assert "cannot use the output folder" in run(output=tmp_path / "file")[2]


def test_a_damaged_manifest_costs_what_is_damaged_alone(run, tmp_path):
    run()
    output = tmp_path / "output"
    whole = tree(output)
    blocks = (output / "manifest.csv").read_bytes().split(b"\n\n")
    blocks[1] = blocks[1].replace(b"deeper", b"deep\xff", 1)
    blocks[2] = b'"' + blocks[2]
    blocks[3] = blocks[3].replace(b",", b"", 1)
    blocks[4] = blocks[4][:50]
    blocks[5] = bytes(len(blocks[5]))
    (output / "manifest.csv").write_bytes(b"\n\n".join(blocks))
    _, out, _ = run()
    assert "5 images explained" in out
    assert "1 were done already" in out
    assert tree(output) == whole


def test_another_table_is_refused_before_anything_is_removed(run, tmp_path):
    (tmp_path / "in" / "bad.jpg").touch()
    run()
    output = tmp_path / "output"
    own = {"manifest-mine.csv": "mine", "errors-old.csv": "mine", "manifest.csv.bak": "mine"}
    for name, text in own.items():
        (output / name).write_text(text)
    whole = tree(output)
    for name in ("manifest.csv", "manifest-4.csv", "errors-4.csv"):
        before = (output / name).read_bytes() if (output / name).exists() else None
        (output / name).write_text("mine\n")
        left = {path: path.read_bytes() for path in output.rglob("*.csv")}
        code, _, err = run()
        assert code == 2
        assert f"{name} is a different table, with other columns or in another format: move it away" in err
        assert [row["file"] for row in rows(output, "errors.csv")] == ["bad.jpg"]
        assert {path: path.read_bytes() for path in output.rglob("*.csv")} == left
        (output / name).unlink()
        if before is not None:
            (output / name).write_bytes(before)
    assert run()[0] == 1
    assert tree(output) == whole


def test_two_runs_in_one_folder_are_refused(run, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    run()
    with claim_folder(tmp_path / "output", json.loads((tmp_path / "output" / "parameters.json").read_text()), 1):
        assert "another run is using" in run()[2]
    assert run()[0] == 0

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert run()[0] == 0


class FullDisk:
    """A disk on which the first `room` writes succeed."""

    def __init__(self, room, number=errno.ENOSPC):
        self.room, self.number = room, number

    def fsync(self, descriptor, real=os.fsync):
        self.room -= 1
        if self.room < 0:
            raise OSError(self.number, os.strerror(self.number))
        real(descriptor)


@pytest.mark.parametrize(
    "room", [pytest.param(n, marks=[] if n in (1, 7, 15) else pytest.mark.campaign) for n in range(1, 18, 2)]
)
def test_a_full_disk_stops_the_run_and_a_restart_goes_on(run, tmp_path, monkeypatch, room):
    run(output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(room).fsync)
        code, _, err = run()
    assert code == 3
    assert "(the disk is full): finished maps are saved; run the same command again to continue\n" in err
    assert err.count("holistic-cam") == 1
    assert "Traceback" not in err
    assert not list((tmp_path / "output").rglob(".part-*"))
    for path in (tmp_path / "output").rglob("*.npz"):
        assert path.read_bytes() == tree(tmp_path / "whole")[path.relative_to(tmp_path / "output").as_posix()]
    run()
    assert tree(tmp_path / "output") == tree(tmp_path / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_has_no_room_for_a_row(run, monkeypatch):
    def opened(journal, *arguments, real=Journal.__init__):
        real(journal, *arguments)
        journal._file.close()
        journal._file = Path("/dev/full").open("wb")  # noqa: SIM115

    monkeypatch.setattr(Journal, "__init__", opened)
    code, _, err = run()
    assert code == 3
    assert "the disk is full" in err


def test_other_trouble_with_the_disk_is_named(run, monkeypatch):
    monkeypatch.setattr(os, "fsync", FullDisk(5, errno.EIO).fsync)
    code, _, err = run()
    assert code == 3
    assert f"([Errno {errno.EIO}] {os.strerror(errno.EIO)}): finished maps are saved" in err


def test_a_really_full_disk(run, tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mounted))
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        run(output=tmp_path / "whole")
        code, _, err = run(output=mounted / "output")
        assert code == 3
        assert "the disk is full" in err
        assert 0 < len(list(mounted.rglob("*.npz"))) < 6
        subprocess.run(("mount", "-o", "remount,size=3m", str(mounted)), check=True)
        assert run(output=mounted / "output")[0] == 0
        assert tree(mounted / "output") == tree(tmp_path / "whole")
    finally:
        subprocess.run(("umount", str(mounted)), check=True)


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    write_whole(tmp_path, "deep/er/file", [b"one", b"two"])
    assert (tmp_path / "deep" / "er" / "file").read_bytes() == b"onetwo"

    def interrupted(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path, "deep/er/file", [b"three"])
    assert (tmp_path / "deep" / "er" / "file").read_bytes() == b"onetwo"
    assert not list(tmp_path.glob(".part-*"))
    (tmp_path / f".part-{'0' * 32}").touch()  # of a process that was killed
    (tmp_path / ".part-of-something-else").touch()
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.glob(".part-*")] == [".part-of-something-else"]
