"""Restarts: what is skipped, made again or rejected; a full disk; two runs in one folder."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from holistic_cam_plugin.batch import parameters
from holistic_cam_plugin.files import write_whole
from tests.batch.batch_tools import make_picture, make_pictures, read_closely, rows, tree

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
    damaged.write_bytes(damaged.read_bytes()[:-1])
    _, out, _ = run("--batch-size", "4")
    assert "2 images explained" in out
    assert "4 were done already" in out
    assert tree(output) == whole
    again = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert again == {missing, damaged}


def test_a_run_of_another_batch_size_goes_on(run, tmp_path):
    run("--batch-size", "4")
    whole = tree(tmp_path / "output")
    (tmp_path / "output" / "maps" / "picture 2.jpg.npz").unlink()
    assert "1 images explained" in run("--batch-size", "2")[1]
    assert tree(tmp_path / "output") == whole


@pytest.mark.parametrize("missing", [1, 3])
def test_maps_that_are_made_again_are_those_of_the_first_run(run, tmp_path, missing):
    """At the same batch size the rounding is the same, whichever images share a batch, and however many are left."""
    options = ("--batch-size", "4", "--dtype", "float32")
    run(*options)
    paths = sorted((tmp_path / "output").rglob("*.npz"))
    before = [np.load(path)["maps"] for path in paths]
    for path in paths[::2][:missing]:
        path.unlink()
    assert f"{missing} images explained" in run(*options)[1]
    for path, maps in zip(paths, before, strict=True):
        assert np.abs(np.load(path)["maps"] - maps).max() <= 1e-6


def test_verify_finds_what_is_damaged_inside(run, tmp_path):
    run()
    output = tmp_path / "output"
    whole, damaged = tree(output), output / "maps" / "picture 4.jpg.npz"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 255
    damaged.write_bytes(data)
    assert "0 images explained" in run()[1]
    assert "1 images explained" in run("--verify")[1]
    assert tree(output) == whole
    assert "0 images explained" in run("--verify")[1]


def test_a_picture_that_is_replaced_by_one_of_the_same_length_is_explained_again(run, tmp_path):
    picture = tmp_path / "in" / "new.bmp"
    make_picture(picture, 1)
    run()
    before = picture.stat()
    make_picture(picture, 2)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert picture.stat().st_size == before.st_size
    assert "1 images explained" in run()[1]
    run(output=tmp_path / "other")
    assert tree(tmp_path / "output") == tree(tmp_path / "other")


def test_shards_together_make_what_one_run_makes(run, tmp_path):
    run(output=tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    names = []
    for shard in (1, 2, 3, 4):
        assert run("--shard", f"{shard}/4", output=tmp_path / str(shard))[0] == 0
        part = tree(tmp_path / str(shard))
        names += [row["file"] for row in rows(tmp_path / str(shard))]
        assert all(part[name] == whole[name] for name in part if name.startswith("maps/"))
    assert sorted(names) == [row["file"] for row in rows(tmp_path / "whole")]


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
    size = str((tmp_path / "in" / "picture 0.jpg").stat().st_size)
    assert [row["bytes"] for row in rows(tmp_path / "output") if row["file"] == "picture 0.jpg"] == [size]
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
        (("--target", "3"), "target (the table's or the folder's, or else predicted, now 3)"),
        (("--no-crop",), "crop (True, now False)"),
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


def test_an_uninstalled_package_has_no_version(monkeypatch):
    def unknown(package):
        raise parameters.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(parameters.metadata, "version", unknown)
    assert set(parameters.read_package_versions().values()) == {"not installed"}


def test_folders_of_something_else_are_refused(run, tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    (output / "thesis.tex").touch()
    assert "contains files but no record.sqlite: choose an empty or new --output" in run()[2]
    (output / "record.sqlite").write_text("no database, but as long as one's header, and a little longer than that")
    assert "record.sqlite cannot be read: file is not a database. Restore it, or choose another" in run()[2]
    (tmp_path / "file").touch()
    assert "cannot use the output folder" in run(output=tmp_path / "file")[2]


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
    "room", [pytest.param(n, marks=[] if n in (0, 3, 7) else pytest.mark.campaign) for n in range(8)]
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
    assert not list((tmp_path / "output").rglob(".part*"))
    whole = tree(tmp_path / "whole")
    for path in (tmp_path / "output").rglob("*.npz"):
        assert read_closely(path) == whole[path.relative_to(tmp_path / "output").as_posix()]
    run()
    assert tree(tmp_path / "output") == tree(tmp_path / "whole")


def test_other_trouble_with_the_disk_is_named(run, monkeypatch):
    monkeypatch.setattr(os, "fsync", FullDisk(5, errno.EIO).fsync)
    code, _, err = run()
    assert code == 3
    assert f"([Errno {errno.EIO}] {os.strerror(errno.EIO)}): finished maps are saved" in err


def test_a_really_full_disk(run, tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mounted))
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        run(output=tmp_path / "whole")
        code, _, err = run(output=mounted / "output")
        assert code == 3
        assert "the disk is full" in err
        assert len(list(mounted.rglob("*.npz"))) < 6
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


@pytest.mark.parametrize("part", ["", ".part"])
def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(tmp_path, part):
    (tmp_path / "thesis.txt").write_text("many pages")
    (tmp_path / ".part").symlink_to("thesis.txt")
    write_whole(tmp_path, "file", [b"one"], part)
    assert (tmp_path / "file").read_bytes() == b"one"
    assert (tmp_path / "thesis.txt").read_text() == "many pages"


def test_processes_forked_after_the_import_write_at_the_same_time(tmp_path):
    """With one temporary name for both, one would end in a FileNotFoundError."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=write_often, args=(tmp_path, name)) for name in ("report.html", "manifest.csv")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.csv", "report.html"]


def write_often(folder, name):
    for _ in range(200):
        write_whole(folder, name, [name.encode()])
        assert (folder / name).read_bytes() == name.encode()


def test_the_tables_are_replaced_and_not_followed(run, tmp_path):
    run()
    output, whole = tmp_path / "output", tree(tmp_path / "output")
    (tmp_path / "thesis.txt").write_text("many pages")
    for name in ("manifest.csv", "errors.csv"):
        (output / name).unlink()
        (output / name).symlink_to(tmp_path / "thesis.txt")
    assert run()[0] == 0
    assert tree(output) == whole
    assert (tmp_path / "thesis.txt").read_text() == "many pages"
