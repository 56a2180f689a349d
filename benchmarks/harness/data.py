"""Data sets: images with their classes, boxes and masks, and the model's input."""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.tv_tensors import BoundingBoxes, Mask

from holistic_cam_plugin.demo.scenes import SCENE_SIZE, Scene, make_scene
from holistic_cam_plugin.demo.sources import Split
from holistic_cam_plugin.errors import UsageError
from holistic_cam_plugin.models.classifier import Classifier
from holistic_cam_plugin.models.images import read_image

__all__ = ["DIGITS", "Box", "Loaded", "Sample", "choose_samples", "find_samples", "load", "measure_confidence"]

DIGITS = "digits"  # `--images` for the bundled scenes
Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
XML_BOX = ("xmin", "ymin", "xmax", "ymax")

# Boxes from a folder of XML files, by the file's stem and the name (synset) of their class.
Annotations = dict[str, dict[str, list[Box]]]


class SceneKey(NamedTuple):
    """Key of a bundled scene; training and held-out scenes share no digits and no photographs."""

    split: Split
    seed: int
    number: int
    digits: int = 1


class Sample(NamedTuple):
    """One image of a data set.

    Attributes:
        name: unique name, the path relative to the folder.
        label: class index, which is explained.
        source: a file, or a scene of digits.
        boxes: boxes of the objects of this class in pixels of the file; may be empty.
        mask: file with a mask of the object, which covers the whole picture at any size; or None.
    """

    name: str
    label: int
    source: Path | SceneKey
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None


class Loaded(NamedTuple):
    """Input of the model.

    Attributes:
        image: `(1, 3, H, W)`, normalised, on the model's device.
        boxes: boxes in pixels of `image`.
        mask: the object's pixels, `(H, W)`; or None.
        others: the pixels of the other objects, `(H, W)`; None without other objects, or where they are not known.
    """

    image: Tensor
    boxes: tuple[Box, ...]
    mask: NDArray[np.bool_] | None = None
    others: NDArray[np.bool_] | None = None


def find_samples(arguments: argparse.Namespace) -> Iterator[Sample]:
    """Yield all images that `--images` and `--labels` or `--boxes` describe, in the random order given by `--seed`.

    Scenes of digits never end. With the same seed, a longer run starts with the images of a shorter one.

    Raises:
        UsageError: no images, or missing labels.
    """
    if str(arguments.images) == DIGITS:
        for number in itertools.count():
            split: Split = "train" if arguments.half == "tuned" else "held-out"
            source = SceneKey(split, arguments.seed, number, arguments.digits)
            scene = _make_scene(source)
            yield Sample(f"scene {number}", scene.labels[0], source, (scene.boxes[0],))
    samples = _read_folder(Path(arguments.images), arguments.labels, arguments.boxes)
    if arguments.masks is not None:
        samples = [sample._replace(mask=arguments.masks / f"{Path(sample.name).stem}.png") for sample in samples]
    for index in np.random.default_rng(arguments.seed).permutation(len(samples)):
        yield samples[index]


def choose_samples(
    samples: Iterable[Sample], classifier: Classifier, count: int | None, min_confidence: float
) -> tuple[list[Sample], int]:
    """Choose the first `count` samples that the model classifies correctly with at least this probability.

    With `min_confidence` 0, samples are chosen without reading them.

    Returns:
        The samples, and the number of unreadable images among those that were tried.
    """
    chosen: list[Sample] = []
    unreadable = 0
    for sample in samples:
        if len(chosen) == count:
            break
        try:
            if min_confidence == 0 or measure_confidence(sample, classifier) >= min_confidence:
                chosen.append(sample)
        except UsageError:
            unreadable += 1
    return chosen, unreadable


def measure_confidence(sample: Sample, classifier: Classifier) -> float:
    """Probability of the sample's class if it is the model's prediction, else -1."""
    with torch.inference_mode():
        probabilities = classifier.model(load(sample, classifier).image)[0].softmax(dim=0)
    return float(probabilities[sample.label]) if int(probabilities.argmax()) == sample.label else -1.0


def load(sample: Sample, classifier: Classifier) -> Loaded:
    """Load the model's input, with boxes in its pixels.

    Raises:
        UsageError: the file cannot be read as an image.
    """
    preprocessing = classifier.preprocessing
    if isinstance(sample.source, SceneKey):
        scene = _make_scene(sample.source, preprocessing.size[0])
        mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
        image = (torch.from_numpy(scene.image) - mean) / std
        own, *others = scene.masks
        return Loaded(image[None].to(classifier.device), sample.boxes, own, np.any(others, axis=0) if others else None)
    picture = read_image(sample.source)
    corners = torch.tensor(sample.boxes, dtype=torch.float64).reshape(-1, 4)
    # Large JPEG files are decoded at a reduced size.
    boxes = BoundingBoxes(
        corners / _measure_reduction(sample.source, picture), format="XYXY", canvas_size=picture.size[::-1]
    )
    image = preprocessing(picture).to(classifier.device)
    mask = None if sample.mask is None else _load_mask(sample.mask, picture, preprocessing.resize_and_crop)
    return Loaded(image, _drop_invisible(preprocessing.resize_and_crop(boxes)), mask)


def _measure_reduction(path: Path, picture: Image.Image) -> Tensor:
    """Ratios of the upright file's width and height, twice, to those of the decoded picture."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # rotated by 90 degrees
            width, height = height, width
    return torch.tensor([width / picture.width, height / picture.height] * 2, dtype=torch.float64)


def _make_scene(key: SceneKey, size: int = SCENE_SIZE) -> Scene:
    return make_scene((key.seed, key.number), key.split, size, key.digits)


def _load_mask(path: Path, picture: Image.Image, seen: Callable[[Mask], Mask]) -> NDArray[np.bool_]:
    """Load the object's pixels in the part of the picture that the model sees."""
    pixels = np.array(read_image(path).resize(picture.size, Image.Resampling.NEAREST).convert("L"))
    mask: NDArray[np.bool_] = seen(Mask(torch.from_numpy(pixels)[None]))[0].numpy() >= 128
    return mask


def _drop_invisible(boxes: BoundingBoxes) -> tuple[Box, ...]:
    """Drop the boxes outside the picture."""
    # torchvision scales in single precision; an edge in the middle of a pixel must stay there.
    corners = boxes.round(decimals=4).tolist()
    return tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in corners if x0 < x1 and y0 < y1)


def _read_folder(images: Path, labels: Path | None, boxes: Path | None) -> list[Sample]:
    """Read a folder with a table of labels, with ImageNet's XML files, or with one subfolder per class."""
    if not images.is_dir():
        raise UsageError(f"--images {images} is not a folder")
    if labels is None and (images / "labels.csv").is_file():
        labels = images / "labels.csv"
    if labels is not None:
        return _read_labels(images, labels)
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not files:
        raise UsageError(f"--images {images} contains no images")
    annotated = _read_annotations(boxes) if boxes else {}
    if any(path.parent == images for path in files):
        return _read_validation_folder(files, annotated)
    return _read_class_folders(images, files, annotated)


def _read_labels(images: Path, labels: Path) -> list[Sample]:
    """Read a table with columns file, class_index and optionally x0, y0, x1, y1; one row per box."""
    samples: dict[str, Sample] = {}
    try:
        with labels.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = row["file"]
                known = samples.get(name) or Sample(name, int(row["class_index"]), images / name)
                if row.get("x0"):
                    x0, y0, x1, y1 = (float(row[column]) for column in BOX_COLUMNS)
                    known = known._replace(boxes=(*known.boxes, (x0, y0, x1, y1)))
                samples[name] = known
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(f"--labels {labels} needs columns file, class_index[, x0, y0, x1, y1]: {error!r}") from error
    return list(samples.values())


def _read_class_folders(images: Path, files: Sequence[Path], annotated: Annotations) -> list[Sample]:
    """Read one folder per class; the index is its place in alphabetical order, as in torchvision's ImageFolder."""
    folders = sorted(path.name for path in images.iterdir() if path.is_dir())
    samples = []
    for path in files:
        name = path.relative_to(images).parts[0]
        boxes = annotated.get(path.stem, {}).get(name, [])
        samples.append(Sample(str(path.relative_to(images)), folders.index(name), path, tuple(boxes)))
    return samples


def _read_validation_folder(files: Sequence[Path], annotated: Annotations) -> list[Sample]:
    """Read ImageNet's validation images from one folder, classes and boxes from XML files of the same names."""
    if not annotated:
        raise UsageError("images without class folders need --labels FILE.csv, or --boxes FOLDER with ImageNet's XML")
    # torchvision's classes are the synsets in alphabetical order; the annotations contain all of them.
    synsets = sorted({synset for objects in annotated.values() for synset in objects})
    samples = []
    for path in files:
        for synset, boxes in itertools.islice(annotated.get(path.stem, {}).items(), 1):
            samples.append(Sample(path.name, synsets.index(synset), path, tuple(boxes)))
    return samples


def _read_annotations(folder: Path) -> Annotations:
    found: Annotations = {}
    for path in sorted(folder.glob("*.xml")):
        objects = found.setdefault(path.stem, {})
        try:
            for item in ElementTree.parse(path).getroot().iter("object"):
                x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{key}", "")) for key in XML_BOX)
                objects.setdefault(item.findtext("name", ""), []).append((x0, y0, x1, y1))
        except (ElementTree.ParseError, ValueError) as error:
            raise UsageError(f"{path} is not an annotation in ImageNet's format: {error}") from error
    return found
