"""What a careful user steps into: commands that look right and hang, are refused, or explain another thing."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.batch.batch_tools import QUICK, make_picture, make_pictures, rows, tree
from tests.hostile.corpus import make_good
from tests.hostile.outcome import assert_explained, assert_told, batch, run
from tests.models.files import MODEL, make_weights

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:a saliency map is constant", "ignore:the mask is zero"),
]

PROGRAM = "holistic-cam batch"


def test_a_mistake_in_the_command_does_not_claim_the_folder(tmp_path):
    """The corrected command is the first one that makes maps there."""
    make_pictures(tmp_path / "pictures", 1)
    assert_told(batch(tmp_path / "pictures", tmp_path / "output", "--layers", "fc"), PROGRAM)
    assert_explained(batch(tmp_path / "pictures", tmp_path / "output"))


def test_folders_named_like_classes_that_are_numbers(tmp_path):
    """Networks trained on an ImageFolder of numbers have them in the order of text: 0, 1, 10, 2."""
    (tmp_path / "labels.txt").write_text("2\n0\n1\n")
    for name in "012":
        make_pictures(tmp_path / "folders" / name, 1)
    outcome = batch(
        tmp_path / "folders", tmp_path / "output", "--imagefolder", "--model", MODEL, "--weights",
        make_weights(tmp_path), "--labels", tmp_path / "labels.txt", "--methods", "gradcam", "--layers", "features.12",
    )  # fmt: skip
    assert_explained(outcome)
    for row in rows(tmp_path / "output"):
        assert row["class"] == row["file"].split("/")[0]


def test_another_folder_s_pictures_of_the_same_names_and_sizes(tmp_path):
    """Frames of a film, say: uncompressed files have all one size."""
    for seed in (1, 2):
        make_picture(tmp_path / f"film {seed}" / "frame.bmp", seed)
    assert_explained(batch(tmp_path / "film 1", tmp_path / "output"))
    assert_explained(batch(tmp_path / "film 2", tmp_path / "new"))
    outcome = batch(tmp_path / "film 2", tmp_path / "output")
    if outcome.code == 2:
        assert_told(outcome, PROGRAM)
        return
    assert_explained(outcome)
    name = "maps/frame.bmp.npz"
    assert (tmp_path / "output" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def test_folders_that_link_to_one_another(tmp_path):
    """Of 12 folders with a link to each of the others there are more than a thousand million ways round."""
    count = 12
    for number in range(count):
        (tmp_path / "web" / str(number)).mkdir(parents=True)
        for other in range(count):
            (tmp_path / "web" / str(number) / f"to {other}").symlink_to(f"../{other}")
    make_pictures(tmp_path / "web" / "0", 1)
    outcome = batch(tmp_path / "web", tmp_path / "output")
    assert_explained(outcome, (0, 1, 2))


@pytest.mark.parametrize("workers", [3, 8])
def test_more_workers_than_processors(tmp_path, workers):
    make_pictures(tmp_path / "pictures", 2)
    outcome = run("batch", tmp_path / "pictures", "--output", tmp_path / "output", *QUICK, "--workers", workers)
    assert_explained(outcome)


@pytest.mark.parametrize("name", ["manifest.csv", "errors.csv", "record.sqlite", ".lock", ".part"])
@pytest.mark.parametrize("command", ["batch", "report"])
def test_a_pipe_where_a_table_should_be(tmp_path, name, command):
    make_pictures(tmp_path / "pictures", 1)
    assert_explained(batch(tmp_path / "pictures", tmp_path / "output"))
    (tmp_path / "output" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "output" / name)
    if command == "report":
        outcome = run("report", tmp_path / "output")
    else:
        outcome = batch(tmp_path / "pictures", tmp_path / "output")
    assert_explained(outcome, (0, 2, 3))
    if outcome.code:
        assert_told(outcome, f"holistic-cam {command}", (2, 3))


def test_a_picture_that_is_gone_is_not_both_explained_and_failed(tmp_path):
    make_pictures(tmp_path / "pictures", 2)
    path = tmp_path / "list.csv"
    path.write_text("file\npicture 0.jpg\ndeeper/picture 1.jpg\n")
    command = path, tmp_path / "output", "--root", tmp_path / "pictures"
    assert_explained(batch(*command))
    (tmp_path / "pictures" / "picture 0.jpg").write_bytes(b"")
    assert_explained(batch(*command), (1,))
    explained, failed = (
        {row["file"] for row in rows(tmp_path / "output", f"{name}.csv")} for name in ("manifest", "errors")
    )
    assert explained == {"deeper/picture 1.jpg"}
    assert failed == {"picture 0.jpg"}


def test_a_restart_is_as_the_first_run_whatever_was_asked_for_between(tmp_path):
    make_pictures(tmp_path / "pictures", 2)
    assert_explained(batch(tmp_path / "pictures", tmp_path / "output"))
    before = tree(tmp_path / "output")
    shutil.copytree(tmp_path / "output", tmp_path / "copy")
    assert_told(batch(tmp_path / "pictures", tmp_path / "output", "--dtype", "float32"), PROGRAM)
    assert_told(batch(tmp_path / "pictures", tmp_path / "output", "--target", "3"), PROGRAM)
    assert_told(batch(tmp_path / "pictures", tmp_path / "output", "--no-crop"), PROGRAM)
    assert tree(tmp_path / "output") == before
    assert_explained(batch(tmp_path / "pictures", tmp_path / "output"))
    assert tree(tmp_path / "output") == before


def test_more_rows_than_a_figure_has_room_for(tmp_path):
    """Matplotlib draws no more than 65,536 pixels a side, and lays out hundreds of rows in hours."""
    make_good(tmp_path / "good.png")
    state = torchvision.models.get_model(MODEL, weights=None, num_classes=300).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    outcome = run(
        tmp_path / "good.png", "--model", MODEL, "--weights", tmp_path / "weights.pth", "--layers", "features.12",
        "--methods", "eigencam", "--target", *range(300), "--output", tmp_path / "output",
    )  # fmt: skip
    if outcome.code == 0:
        with Image.open(tmp_path / "output" / "good_holistic_cam.png") as figure:
            figure.load()
    else:
        assert_told(outcome, "holistic-cam")


def test_classes_given_twice_keep_their_arrays(tmp_path):
    """A class by index and by name is one class, and no file is written over another."""
    make_good(tmp_path / "good.png")
    outcome = run(
        tmp_path / "good.png", "--model", MODEL, "--weights", make_weights(tmp_path), "--layers", "features.12",
        "--methods", "classholisticcam", "--target", "1", "class 1", "2", "--save-array", "--output",
        tmp_path / "output",
    )  # fmt: skip
    if outcome.code == 2:
        assert_told(outcome, "holistic-cam")
        return
    assert_explained(outcome)
    arrays = [np.load(path) for path in sorted((tmp_path / "output").glob("*.npy"))]
    assert len(arrays) == 2
