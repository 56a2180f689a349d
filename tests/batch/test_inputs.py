"""Folders, CSV files and class folders become a list of jobs, the same on every machine."""

from __future__ import annotations

import os

import pytest

from holistic_cam_plugin.__main__ import main
from holistic_cam_plugin.batch.inputs import Job, check_input, find_inputs
from holistic_cam_plugin.errors import UsageError

CLASSES = ("ant", "bee", "hen")


def found(source, folder_targets=False, root=None, skipped=None, classes=CLASSES):
    return find_inputs(source, classes, folder_targets, root, skipped)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_with_all_its_folders(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "c/d/e.webp", "c.jpg", "notes.txt", "c/data.csv")
    inputs = found(tmp_path)
    assert inputs.root == tmp_path
    assert inputs.jobs == [Job("a.png"), Job("b.JPG"), Job("c.jpg"), Job("c/d/e.webp")]


def test_links_are_followed_and_never_round_a_loop(tmp_path):
    touch(tmp_path, "in/a/x.jpg", "elsewhere/y.jpg")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere")
    assert [job.name for job in found(tmp_path / "in").jobs] == ["a/x.jpg", "b/y.jpg", "gone.jpg"]


def test_pictures_that_nobody_can_read_are_not_left_out(tmp_path):
    touch(tmp_path, "a.HEIC", "b.avif", "c.pdf")
    assert found(tmp_path).jobs == [Job("a.HEIC"), Job("b.avif")]


def test_the_output_is_no_input(tmp_path):
    touch(tmp_path, "x.jpg", "output/overlays/x.jpg.jpg")
    assert found(tmp_path, skipped=tmp_path / "output").jobs == [Job("x.jpg")]


def test_a_folder_that_can_not_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "open/x.jpg", "shut/y.jpg")
    scan = os.scandir

    def denied(path):
        if path == tmp_path / "shut":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert found(tmp_path).jobs == [Job("open/x.jpg"), Job("shut", (), "cannot read the folder: Permission denied")]
    with pytest.raises(UsageError, match=r"cannot read the folder .*: \[Errno 13\]"):
        found(tmp_path / "shut")


def test_a_csv_with_targets(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        f"target,file,note\nHEN,b/x.jpg,1\n,./a.jpg,2\n0,b/x.jpg,3\nhen,b/../b/x.jpg,4\n1,{tmp_path}/c.jpg,5\n"
    )
    assert found(path).jobs == [Job("a.jpg"), Job("b/x.jpg", (2, 0)), Job("c.jpg", (1,))]
    assert found(path).root == tmp_path


@pytest.mark.parametrize("head", ["file, target", "File,TARGET", " file ,\ttarget", "\ufefffile,target "])
def test_padded_and_capital_columns_are_known(tmp_path, head):
    path = tmp_path / "list.csv"
    path.write_text(f"{head}\nx.jpg, hen\n", encoding="utf-8")
    assert found(path).jobs == [Job("x.jpg", (2,))]


def test_a_csv_with_labels_masks_and_boxes(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        "file,label,mask,left,top,right,bottom,note,file size\n"
        "x.jpg,bee,m/x.png,1,2,3.5,4,,\nx.jpg,,,5,6,7,8,,\ny.jpg,,,,,,,,\n"
    )
    assert found(path).jobs == [
        Job("x.jpg", label=1, mask="m/x.png", boxes="[[1.0, 2.0, 3.5, 4.0], [5.0, 6.0, 7.0, 8.0]]"),
        Job("y.jpg"),
    ]
    assert found(path).unused == ("note", "file size")


def test_a_csv_of_files_elsewhere(tmp_path):
    path = tmp_path / "lists" / "list.csv"
    path.parent.mkdir()
    path.write_bytes("\ufefffile\nx.jpg\n".encode())
    assert found(path, root=tmp_path) == (tmp_path, [Job("x.jpg")], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,target\nx.jpg,1\n", "line 1: there must be a column 'file', .*, got: path, target"),
        ("", "line 1: there must be a column 'file', .*, got: none"),
        ("file,target\nx.jpg,heen\n", "line 2: the model has no class 'heen'; did you mean hen?"),
        ("file,target\nx.jpg,7\n", "line 2: class 7 is out of range"),
        ("file\n../x.jpg\n", "line 2: '../x.jpg' is not a path below .*; set --root to its folder"),
        ("file\n/x.jpg\n", "line 2: '/x.jpg' is not a path below"),
        ("file,target\n,1\n", "line 2: '' is not a path below"),
        ("target,file\n1\n", "line 2: '' is not a path below"),
        ("file\n/a\0/x.jpg\n", "cannot read .*list.csv as a CSV"),
        (f"file,target\nx.jpg,{'9' * 5000}\n", "line 2: the model has no class '9999"),
        (f"file,target\nx.jpg,{'9' * 200_000}\n", "cannot read .*list.csv as a CSV: field larger"),
        ("file\n.\n", "line 2: '.' is not a path below"),
        ("file\na/..\n", "line 2: 'a/..' is not a path below"),
        ("file\n", "no image found in"),
        ("file,taget\nx.jpg,1\n", "the column 'taget' resembles 'target': call it that, or something else"),
        ("file,Labels\nx.jpg,1\n", "the column 'Labels' resembles 'label'"),
        ("fille,target\nx.jpg,1\n", "the column 'fille' resembles 'file'"),
        ("file,target,TARGET\nx.jpg,1,2\n", "none of .* twice, .*, got: file, target, TARGET"),
        ("file,label\nx.jpg,ant\nx.jpg,bee\n", "line 3: x.jpg has another label or mask in an earlier line"),
        ("file,mask\nx.jpg,a.png\nx.jpg,b.png\n", "line 3: x.jpg has another label or mask in an earlier line"),
        ("file,left,top,right\nx.jpg,1,2,3\n", "all of left, top, right, bottom or none, got: file, left, top, right"),
        ("file,left,top,right,bottom\nx.jpg,1,2,3\n", "line 2: a box needs left < right and top < bottom"),
        ("file,left,top,right,bottom\nx.jpg,3,2,1,4\n", "line 2: a box needs left < right and top < bottom"),
        ("file,left,top,right,bottom\nx.jpg,1,2,nan,4\n", "line 2: a box needs left < right and top < bottom"),
    ],
)
def test_a_csv_that_can_not_be_meant(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        found(tmp_path / "list.csv")


def test_absolute_paths_below_a_root_that_is_a_link(tmp_path):
    touch(tmp_path, "real/in/x.jpg", "elsewhere/z.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "in" / "out").symlink_to(tmp_path / "elsewhere")
    files = ("real/in/x.jpg", "link/in/y.jpg", "link/in/out/z.jpg", "link/../link/in/w.jpg")
    path = tmp_path / "list.csv"
    path.write_text("file\n" + "".join(f"{tmp_path}/{file}\n" for file in files))
    names = ["in/out/z.jpg", "in/w.jpg", "in/x.jpg", "in/y.jpg"]
    assert [job.name for job in found(path, root=tmp_path / "link").jobs] == names
    path.write_text("file\n" + "".join(f"{tmp_path}/{file}\n" for file in files[:2]))
    assert [job.name for job in found(path, root=tmp_path / "real").jobs] == ["in/x.jpg", "in/y.jpg"]


def check(source, folder_targets=False, root=None, output=None):
    check_input(source, folder_targets, root, output or source.parent / "new")


def test_other_inputs_are_refused(tmp_path):
    touch(tmp_path, "photo.jpg", "in/maps/overlays/x.jpg")
    (tmp_path / "latin.csv").write_bytes("file\nä.jpg\n".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"INPUT must be a folder or a CSV with a column 'file', got .*photo\.jpg"):
        check(tmp_path / "photo.jpg")
    with pytest.raises(UsageError, match="INPUT must be a folder with one folder per class"):
        check(tmp_path / "latin.csv", folder_targets=True)
    with pytest.raises(UsageError, match=r"does not exist; did you mean photo\.jpg"):
        check(tmp_path / "phoot.jpg")
    with pytest.raises(UsageError, match=r"--root must be a folder, got .*nowhere"):
        check(tmp_path / "latin.csv", root=tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"INPUT and --output are the same folder, .*: choose another --output"):
        check(tmp_path / "in", output=tmp_path / "in" / "maps" / "..")
    for source, output in (("empty", "new"), ("in", "in/maps")):
        with pytest.raises(UsageError, match=r"no image found in .*; supported file endings: \.jpg"):
            check(tmp_path / source, output=tmp_path / output)
    check(tmp_path / "in")
    check(tmp_path / "latin.csv", root=tmp_path / "empty")
    with pytest.raises(UsageError, match=r"cannot read .*latin\.csv as a CSV"):
        found(tmp_path / "latin.csv")
    with pytest.raises(UsageError, match=r"no image found in .*; supported file endings: \.jpg"):
        found(tmp_path / "empty")


def test_the_input_is_looked_for_before_the_model(tmp_path, monkeypatch, capsys):
    def download(*_, **__):
        raise AssertionError("the model is not needed yet")

    monkeypatch.setattr("torchvision.models.get_model", download)
    for command in (("nowhere",), ("nowhere", "--imagefolder"), (str(tmp_path),)):
        assert main(["batch", *command, "--output", str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_class_folders_by_name_and_by_place(tmp_path):
    touch(tmp_path, "Hen/1.jpg", "ant/deeper/2.jpg", "stray.jpg")
    assert found(tmp_path, folder_targets=True).jobs == [
        Job("Hen/1.jpg", label=2),
        Job("ant/deeper/2.jpg", label=0),
        Job("stray.jpg", (), "not inside a class folder"),
    ]
    # As many folders as classes: numbered in alphabetical order, as in torchvision's ImageFolder.
    jobs = found(tmp_path, folder_targets=True, classes=("class 0", "class 1")).jobs
    assert [job.label for job in jobs[:2]] == [0, 1]
    with pytest.raises(UsageError, match="cannot match the 2 folders of INPUT to the model's 3 classes: "):
        found(tmp_path, folder_targets=True, classes=("a", "b", "c"))
