"""Data sets: images, classes, boxes and masks in the model's input."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn

from benchmarks.harness.data import Sample, choose_samples, find_samples, load
from benchmarks.harness.grids import compose_grids, load_grid
from holistic_cam_plugin.demo.scenes import make_scene
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.metrics import energy_pointing_game, rasterize_region
from holistic_cam_plugin.models.classifier import Classifier, load_classifier
from holistic_cam_plugin.models.explainable import Explainable
from holistic_cam_plugin.models.images import read_image
from holistic_cam_plugin.models.preprocessing import Preprocessing

ANNOTATION = """<annotation><filename>{name}</filename>{objects}</annotation>"""
OBJECT = """<object><name>{synset}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>
</bndbox></object>"""


class Brightness(nn.Module):
    """Predicts class 1 for bright images and class 0 for dark ones, with confidence."""

    def forward(self, x: Tensor) -> Tensor:
        mean = 20 * x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


SQUASHED = 0  # the whole picture, its aspect not kept


def make_classifier(size: int = 224, resize: int = 256) -> Classifier:
    sides = (size, size)
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, sides, resize or sides, "bilinear", "made")
    found = Explainable(Brightness(), [], [], None, sides, 1, preprocessing, None, (2,), [])
    return Classifier("brightness", ["dark", "bright"], found, torch.device("cpu"))


def make_arguments(images: Path | str, **others: Any) -> argparse.Namespace:
    return argparse.Namespace(
        digits=1, **({"images": images, "labels": None, "boxes": None, "masks": None, "seed": 0, "half": None} | others)
    )


def save_picture(path: Path, box: tuple[int, int, int, int] | None = None, size: tuple[int, int] = (400, 300)) -> Path:
    """Write a black picture that is white inside the box, or all white without a box."""
    pixels = np.full((size[1], size[0], 3), 255 if box is None else 0, dtype=np.uint8)
    if box is not None:
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_annotation(folder: Path, stem: str, *objects: tuple[str, tuple[int, int, int, int]]) -> None:
    folder.mkdir(exist_ok=True)
    text = "".join(OBJECT.format(*box, synset=synset) for synset, box in objects)
    (folder / f"{stem}.xml").write_text(ANNOTATION.format(name=stem, objects=text))


def test_labels_of_a_table_with_boxes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,class_index,class_name,x0,y0,x1,y1\na.png,3,cat,1,2,30,40\na.png,3,cat,5,5,9,9\nb.png,7,dog,,,,\n"
    )
    samples = sorted(find_samples(make_arguments(tmp_path)))
    assert [(s.name, s.label, s.boxes) for s in samples] == [
        ("a.png", 3, ((1, 2, 30, 40), (5, 5, 9, 9))),
        ("b.png", 7, ()),
    ]


def test_class_folders_take_boxes_of_their_class_alone(tmp_path: Path) -> None:
    images, boxes = tmp_path / "images", tmp_path / "boxes"
    save_picture(images / "n02" / "x.png")
    save_picture(images / "n01" / "y.png")
    save_annotation(boxes, "x", ("n01", (1, 1, 5, 5)), ("n02", (2, 3, 40, 50)))
    samples = sorted(find_samples(make_arguments(images, boxes=boxes)))
    assert [(s.name, s.label, s.boxes) for s in samples] == [("n01/y.png", 0, ()), ("n02/x.png", 1, ((2, 3, 40, 50),))]


def test_validation_layout_has_class_and_boxes_from_its_annotations(tmp_path: Path) -> None:
    images, boxes = tmp_path / "val", tmp_path / "boxes"
    save_picture(images / "val_1.png")
    save_picture(images / "val_2.png")
    save_annotation(boxes, "val_1", ("n09", (10, 20, 30, 40)), ("n09", (50, 60, 70, 80)))
    save_annotation(boxes, "val_2", ("n05", (1, 2, 3, 4)))
    save_annotation(boxes, "val_3", ("n07", (1, 2, 3, 4)))  # of an image that is not there: its class counts
    samples = sorted(find_samples(make_arguments(images, boxes=boxes)))
    assert [(s.name, s.label) for s in samples] == [("val_1.png", 2), ("val_2.png", 0)]
    assert samples[0].boxes == ((10, 20, 30, 40), (50, 60, 70, 80))


@pytest.mark.parametrize("size", [(400, 300), (300, 451), (224, 224), (1000, 230)])
def test_a_box_follows_its_object_through_resize_and_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    box = (width // 3, height // 4, 2 * width // 3, 3 * height // 4)
    sample = Sample("a", 0, save_picture(tmp_path / "a.png", box, size), (box,))
    for resize in (256, 224, SQUASHED):
        loaded = load(sample, make_classifier(resize=resize))
        rows, columns = (loaded.image[0, 0] > 0).nonzero(as_tuple=True)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert loaded.image.shape == (1, 3, 224, 224)
        assert np.allclose(loaded.boxes[0], seen, atol=1.01)


@pytest.mark.parametrize("size", [(400, 300), (300, 451), (1000, 230)])
def test_a_mask_of_any_size_lies_on_its_object(tmp_path: Path, size: tuple[int, int]) -> None:
    box = (size[0] // 3, size[1] // 4, 2 * size[0] // 3, 3 * size[1] // 4)
    save_picture(tmp_path / "a.png", box, size)
    (tmp_path / "masks").mkdir()
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).resize((224, 224)).save(tmp_path / "masks" / "a.png")  # of the whole picture, squashed
    (tmp_path / "labels.csv").write_text("file,class_index\na.png,0\n")
    (sample,) = find_samples(make_arguments(tmp_path, masks=tmp_path / "masks"))
    for resize in (256, 224, SQUASHED):
        loaded = load(sample, make_classifier(resize=resize))
        assert loaded.mask is not None
        seen = (loaded.image[0, 0] > 0).numpy()
        assert (loaded.mask & seen).sum() / (loaded.mask | seen).sum() > 0.95


@pytest.mark.parametrize("orientation", [None, 6])
def test_a_box_lies_on_its_object_in_a_file_that_is_decoded_at_half_its_size(
    tmp_path: Path, orientation: int | None
) -> None:
    width, height = 4400, 4100
    box = (1000, 500, 2500, 1700)
    pixels = Image.new("L", (width, height))
    pixels.paste(255, box)
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
        box = (height - box[3], box[0], height - box[1], box[2])  # turned clockwise to be upright
    pixels.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").width < 2300
    for resize in (256, SQUASHED):
        loaded = load(Sample("a", 0, tmp_path / "a.jpg", (box,)), make_classifier(resize=resize))
        rows, columns = (loaded.image[0, 0] > 0).nonzero(as_tuple=True)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.allclose(loaded.boxes[0], seen, atol=1.01)
        maps = (loaded.image[:, 0] > 0).float()
        assert energy_pointing_game(maps, [loaded.boxes])[0] > 0.95


def test_boxes_outside_of_the_crop_are_gone(tmp_path: Path) -> None:
    boxes = ((0, 0, 20, 20), (90, 40, 110, 60))
    sample = Sample("a", 0, save_picture(tmp_path / "a.png", size=(200, 100)), boxes)
    assert load(sample, make_classifier(size=50, resize=100)).boxes == ((15, 15, 35, 35),)


def test_boxes_are_scaled_shifted_and_cut_as_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        size = rng.integers(30, 500, 2)
        corners = np.sort(rng.integers(0, size + 1, (20, 2, 2)), axis=1).astype(float)  # box, corner, axis
        boxes = tuple(map(tuple, corners.reshape(-1, 4).tolist()))
        sample = Sample("a", 0, save_picture(tmp_path / "a.png", size=(int(size[0]), int(size[1]))), boxes)
        for crop, resize in ((224, 256), (224, 224), (200, 232), (64, SQUASHED)):
            resized = np.array([crop, crop]) if resize == SQUASHED else resize * size // size.min()
            expected = np.clip(corners * resized / size - np.rint((resized - crop) / 2), 0, crop)
            expected = expected[(expected[:, 0] < expected[:, 1]).all(axis=1)].reshape(-1, 4)
            found = load(sample, make_classifier(crop, resize)).boxes
            assert len(found) == len(expected)
            for box, by_hand in zip(found, expected, strict=True):
                assert box == pytest.approx(tuple(by_hand), abs=1e-4), number
                assert np.array_equal(fill_box(box, crop), fill_box(by_hand, crop))


def fill_box(box: Sequence[float], size: int) -> np.ndarray:
    try:
        return rasterize_region([box], size, size)
    except ValueError:  # between the centres of two pixels
        return np.zeros((size, size), bool)


def test_chosen_samples_are_confident_and_readable(tmp_path: Path) -> None:
    bright = Sample("bright", 1, save_picture(tmp_path / "1.png"))
    wrong = Sample("wrong", 0, save_picture(tmp_path / "2.png"))
    broken = Sample("broken", 1, tmp_path / "3.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    samples = [broken, wrong, bright, bright._replace(name="more")]
    assert choose_samples(samples, make_classifier(), 1, 0.8) == ([bright], 1)
    assert choose_samples(samples, make_classifier(), None, 0.0) == (samples, 0)


def test_more_samples_begin_with_those_of_a_shorter_run(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,class_index\n" + "".join(f"{i}.png,0\n" for i in range(20)))
    orders = [[s.name for s in find_samples(make_arguments(tmp_path, seed=seed))] for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "contains no images"),
        ({"a.png": b""}, "need --labels"),
        ({"labels.csv": b"file\na.png\n"}, "needs columns file"),
    ],
)
def test_invalid_folders(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        list(find_samples(make_arguments(tmp_path)))
    with pytest.raises(UsageError, match="is not a folder"):
        list(find_samples(make_arguments(tmp_path / "none")))


def test_the_tuned_half_of_the_scenes_is_what_the_model_was_trained_on() -> None:
    for half, split in (("tuned", "train"), ("reported", "held-out"), (None, "held-out")):
        scene = next(find_samples(make_arguments("digits", half=half)))
        pixels = load(scene, make_classifier()).image[0]
        np.testing.assert_allclose(pixels / 2 + 0.5, make_scene((0, 0), split).image, atol=1e-6)


def test_scenes_of_digits_have_the_strokes_of_their_digit() -> None:
    sample = next(find_samples(make_arguments("digits")))
    scene = make_scene((0, 0), "held-out")
    loaded = load(sample, load_classifier("digits", None, None, "cpu"))
    assert loaded.mask is not None
    assert np.array_equal(loaded.mask, scene.masks[0])
    assert loaded.boxes == (scene.boxes[0],)


def test_scenes_of_digits_have_the_box_of_their_digit() -> None:
    scenes = find_samples(make_arguments("digits"))
    sample = next(scenes)
    loaded = load(sample, make_classifier())
    assert loaded.image.shape == (1, 3, 224, 224)
    assert loaded.boxes == sample.boxes
    assert next(scenes).source != sample.source


def test_every_sample_is_the_target_of_one_grid(tmp_path: Path) -> None:
    samples = [Sample(str(i), i % 5, save_picture(tmp_path / f"{i}.png", (i, 0, i + 99, 200))) for i in range(9)]
    grids = compose_grids(samples, seed=0)
    assert [grid.tiles[grid.quarter] for grid in grids] == samples
    assert all(len({tile.label for tile in grid.tiles}) == 4 for grid in grids)
    assert len({grid.quarter for grid in grids}) > 1
    loaded = load_grid(grids[0], make_classifier())
    (x0, y0, x1, y1), *rest = loaded.boxes
    tile = loaded.image[:, :, int(y0) : int(y1), int(x0) : int(x1)]
    assert loaded.image.shape == (1, 3, 448, 448)
    assert not rest
    assert torch.equal(tile, load(samples[0], make_classifier()).image)
    with pytest.raises(UsageError, match="four different classes"):
        compose_grids(samples[:3], seed=0)


def test_annotations_of_another_format_are_named(tmp_path: Path) -> None:
    save_picture(tmp_path / "val" / "val_1.png")
    (tmp_path / "val_1.xml").write_text("<annotation><object><name>n01</name></object></annotation>")
    with pytest.raises(UsageError, match=r"val_1\.xml is not an annotation"):
        list(find_samples(make_arguments(tmp_path / "val", boxes=tmp_path)))
