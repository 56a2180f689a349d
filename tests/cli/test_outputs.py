"""Names of output files: different ones, inside the output folder, the same in every run."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holistic_cam_plugin.cli.outputs import choose_stems, prepare_folder, shorten_name, write_file
from holistic_cam_plugin.errors import OutputError, UsageError

ODD = [
    "..jpg", "...jpg", ".jpg", ". .jpg", "-x.jpg", "--help.jpg", "a_b.jpg", "a b.jpg", "a  b.jpg", "line\nend.jpg",
    "line_end.jpg", "tab\t.jpg", "n" * 250 + ".jpg", "n" * 249 + "m.jpg", "像" * 83 + ".jpg", "a$_$b.jpg", "😀.jpg",
    "a\\b.jpg", 'quo"te.jpg', "A_B.jpg", "é.jpg", "e\u0301.jpg", os.fsdecode(b"\xff.jpg"), os.fsdecode(b"\xfe.jpg"),
    "\\xff.jpg", "x.jpg", "x_2.jpg", "x.png", "\u202egnp.jpg", "con.jpg", "a:b.jpg",
]  # fmt: skip


def one_file_system(name):
    """Under what name a file system that ignores case and composes accents knows the file."""
    return unicodedata.normalize("NFC", name).casefold()


def checked(stems):
    for stem in stems:
        name = f"{stem}_holistic_cam.png"
        assert Path(name).name == name
        assert name[0] not in ".-"
        assert name.isprintable()
        assert "\\" not in name
        assert len(name.encode()) <= 200
    assert len({one_file_system(stem) for stem in stems}) == len(stems)


def test_odd_names_give_names_of_their_own():
    paths = [Path("a", name) for name in ODD] + [Path("b", name) for name in ODD]
    checked(choose_stems(paths))
    checked(choose_stems(paths[::-1]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8))
def test_any_names_give_names_of_their_own(names):
    paths = [Path(os.fsdecode(name.replace(b"/", b"-").replace(b"\0", b"-"))) for name in names]
    checked(choose_stems([path for path in paths if path.name]))


def test_plain_names_are_kept():
    names = ["photo.jpg", "photo (1).jpg", "IMG_0001.JPG", "a.b.c.png", "Ünïcode 像.webp", "noending"]
    assert choose_stems(map(Path, names)) == [Path(name).stem for name in names]


def test_an_image_alone_has_the_same_name_in_every_run():
    for name in ODD:
        assert choose_stems([Path(name)]) == choose_stems([Path("elsewhere", name)])
    alone = [choose_stems([Path(name)])[0] for name in ODD]
    by_stem = dict(zip((Path(name).stem for name in ODD), alone, strict=True))
    assert len(set(alone)) == len(by_stem)  # x.jpg and x.png alone are both x


def test_a_second_image_of_one_name_gets_a_number_that_no_other_has():
    assert choose_stems(map(Path, ["a/x.jpg", "b/x.jpg", "x_2.jpg", "c/x.jpg"])) == ["x", "x_3", "x_2", "x_4"]


def test_names_are_shown_in_one_line():
    assert shorten_name(Path("in/line\nend\x1b[1m.jpg")) == "line\\nend\\x1b[1m.jpg"
    assert shorten_name(Path(os.fsdecode(b"bytes \xff.jpg"))) == "bytes \\xff.jpg"
    assert shorten_name(Path("Ünïcode 像😀 $x$.jpg")) == "Ünïcode 像😀 $x$.jpg"
    assert shorten_name(Path("n" * 300 + ".jpg")) == "n" * 50 + "…" + "n" * 45 + ".jpg"


def test_what_lies_in_the_way_is_found_before(tmp_path):
    (tmp_path / "x_holistic_cam.png").mkdir()
    with pytest.raises(UsageError, match=r"x_holistic_cam\.png is a folder, but a file must be written there"):
        prepare_folder(tmp_path, ["y_holistic_cam.png", "x_holistic_cam.png"])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the output folder .*file/below cannot be used: Not a directory"):
        prepare_folder(tmp_path / "file" / "below", [])
    prepare_folder(tmp_path / "new" / "er", ["a"])
    assert (tmp_path / "new" / "er").is_dir()
    assert not list((tmp_path / "new" / "er").iterdir())


def test_a_folder_that_takes_no_file(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(UsageError, match="cannot be used: Permission denied"):
        prepare_folder(tmp_path, [])


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path, "figure.png", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"figure\.png cannot be written: No space left on device"):
        write_file(tmp_path, "figure.png", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("figure.png", b"old")]
