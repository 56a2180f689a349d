"""Images with their classes and boxes: where they come from, which of them are taken, and the model's input."""

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

from benchmarks.harness.models import DIGITS
from holistic_cam_plugin.classifiers.images import read_image
from holistic_cam_plugin.classifiers.models import Classifier
from holistic_cam_plugin.demo.scenes import SCENE_SIZE, Scene, make_scene
from holistic_cam_plugin.demo.sources import Split
from holistic_cam_plugin.errors import UsageError

__all__ = ["Box", "Loaded", "Sample", "candidates", "confidence", "load", "taken"]

Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
XML_BOX = ("xmin", "ymin", "xmax", "ymax")

# Of a folder of XML files: boxes by the file's stem, then by the name (synset) of their class.
Annotations = dict[str, dict[str, list[Box]]]


class SceneKey(NamedTuple):
    """Which of the bundled scenes; none of a training scene's digits and photographs is in a held-out one."""

    split: Split
    seed: int
    number: int


class Sample(NamedTuple):
    """One image of a data set.

    Attributes:
        name: its file relative to the folder; unique.
        label: class index, the target that is explained.
        source: the file, or a scene of digits.
        boxes: of the objects of this class, in pixels of the file; empty where none are known.
        mask: file with a mask of the object, of the whole picture whatever its own size; None where none is known.
    """

    name: str
    label: int
    source: Path | SceneKey
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None


class Loaded(NamedTuple):
    """What the model sees.

    Attributes:
        image: `(1, 3, H, W)`, normalised, on the model's device.
        boxes: in its pixels.
        mask: `(H, W)`, the object's pixels; None where they are not known.
    """

    image: Tensor
    boxes: tuple[Box, ...]
    mask: NDArray[np.bool_] | None = None


def candidates(arguments: argparse.Namespace) -> Iterator[Sample]:
    """All the images that `--images` and `--labels` or `--boxes` describe, in the random order that `--seed` gives.

    Scenes of digits have no end. The first images of a long run are those of a short one with the same seed.

    Raises:
        UsageError: no images, or labels that are missing.
    """
    if str(arguments.images) == DIGITS:
        for number in itertools.count():
            source = SceneKey("train" if arguments.half == "tuned" else "held-out", arguments.seed, number)
            scene = _scene(source)
            yield Sample(f"scene {number}", scene.labels[0], source, (scene.boxes[0],))
    samples = _folder(Path(arguments.images), arguments.labels, arguments.boxes)
    if arguments.masks is not None:
        samples = [sample._replace(mask=arguments.masks / f"{Path(sample.name).stem}.png") for sample in samples]
    for index in np.random.default_rng(arguments.seed).permutation(len(samples)):
        yield samples[index]


def taken(
    samples: Iterable[Sample], classifier: Classifier, count: int | None, min_confidence: float
) -> tuple[list[Sample], int]:
    """The first `count` samples that the model classifies correctly with at least this probability.

    With `min_confidence` 0 every image is taken, unread.

    Returns:
        The samples, and how many unreadable images were met on the way.
    """
    chosen: list[Sample] = []
    unreadable = 0
    for sample in samples:
        if len(chosen) == count:
            break
        try:
            if min_confidence == 0 or confidence(sample, classifier) >= min_confidence:
                chosen.append(sample)
        except UsageError:
            unreadable += 1
    return chosen, unreadable


def confidence(sample: Sample, classifier: Classifier) -> float:
    """The probability of the sample's class if that is the model's prediction, else -1."""
    with torch.inference_mode():
        probabilities = classifier.model(load(sample, classifier).image)[0].softmax(dim=0)
    return float(probabilities[sample.label]) if int(probabilities.argmax()) == sample.label else -1.0


def load(sample: Sample, classifier: Classifier) -> Loaded:
    """The model's input and the boxes in its pixels.

    Raises:
        UsageError: the file can't be read as an image.
    """
    preprocessing = classifier.preprocessing
    if isinstance(sample.source, SceneKey):
        scene = _scene(sample.source, preprocessing.size[0])
        mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
        image = (torch.from_numpy(scene.image) - mean) / std
        return Loaded(image[None].to(classifier.device), sample.boxes, scene.masks[0])
    picture = read_image(sample.source)
    corners = torch.tensor(sample.boxes, dtype=torch.float64).reshape(-1, 4)
    # A large JPEG file is decoded at a part of its size.
    boxes = BoundingBoxes(corners / _reduction(sample.source, picture), format="XYXY", canvas_size=picture.size[::-1])
    image = preprocessing(picture).to(classifier.device)
    mask = None if sample.mask is None else _mask(sample.mask, picture, preprocessing.seen)
    return Loaded(image, _visible(preprocessing.seen(boxes)), mask)


def _reduction(path: Path, picture: Image.Image) -> Tensor:
    """How much wider, higher, wider and higher the upright file is than the picture that was decoded of it."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # lies on its side
            width, height = height, width
    return torch.tensor([width / picture.width, height / picture.height] * 2, dtype=torch.float64)


def _scene(key: SceneKey, size: int = SCENE_SIZE) -> Scene:
    return make_scene((key.seed, key.number), key.split, size)


def _mask(path: Path, picture: Image.Image, seen: Callable[[Mask], Mask]) -> NDArray[np.bool_]:
    """The object's pixels in what the model sees of the picture."""
    pixels = np.array(read_image(path).resize(picture.size, Image.Resampling.NEAREST).convert("L"))
    mask: NDArray[np.bool_] = seen(Mask(torch.from_numpy(pixels)[None]))[0].numpy() >= 128
    return mask


def _visible(boxes: BoundingBoxes) -> tuple[Box, ...]:
    """Those of which a part is inside the picture."""
    # torchvision scales by ratios of single precision: an edge in the middle of a pixel must stay there.
    corners = boxes.round(decimals=4).tolist()
    return tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in corners if x0 < x1 and y0 < y1)


def _folder(images: Path, labels: Path | None, boxes: Path | None) -> list[Sample]:
    """Samples of a folder: with a table of labels, with ImageNet's XML files, or one class a subfolder."""
    if not images.is_dir():
        raise UsageError(f"--images {images} is no folder")
    if labels is None and (images / "labels.csv").is_file():
        labels = images / "labels.csv"
    if labels is not None:
        return _labelled(images, labels)
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not files:
        raise UsageError(f"--images {images} holds no images")
    annotated = _annotations(boxes) if boxes else {}
    if any(path.parent == images for path in files):
        return _validation_layout(files, annotated)
    return _class_folders(images, files, annotated)


def _labelled(images: Path, labels: Path) -> list[Sample]:
    """`labels` has the columns file and class_index, and may have x0, y0, x1, y1: one row a box."""
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
        raise UsageError(f"--labels {labels} needs file, class_index (and x0, y0, x1, y1): {error!r}") from error
    return list(samples.values())


def _class_folders(images: Path, files: Sequence[Path], annotated: Annotations) -> list[Sample]:
    """One folder a class; the index is the folder's place in alphabetical order, as in torchvision's ImageFolder."""
    folders = sorted(path.name for path in images.iterdir() if path.is_dir())
    samples = []
    for path in files:
        name = path.relative_to(images).parts[0]
        boxes = annotated.get(path.stem, {}).get(name, [])
        samples.append(Sample(str(path.relative_to(images)), folders.index(name), path, tuple(boxes)))
    return samples


def _validation_layout(files: Sequence[Path], annotated: Annotations) -> list[Sample]:
    """ImageNet's validation images in one folder: class and boxes come from the XML file of the same name."""
    if not annotated:
        raise UsageError("images without class folders need --labels FILE.csv, or --boxes FOLDER with ImageNet's XML")
    # Synsets in alphabetical order are torchvision's classes; all of them occur among the annotations of the data set.
    synsets = sorted({synset for objects in annotated.values() for synset in objects})
    samples = []
    for path in files:
        for synset, boxes in itertools.islice(annotated.get(path.stem, {}).items(), 1):
            samples.append(Sample(path.name, synsets.index(synset), path, tuple(boxes)))
    return samples


def _annotations(folder: Path) -> Annotations:
    found: Annotations = {}
    for path in sorted(folder.glob("*.xml")):
        objects = found.setdefault(path.stem, {})
        try:
            for item in ElementTree.parse(path).getroot().iter("object"):
                x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{key}", "")) for key in XML_BOX)
                objects.setdefault(item.findtext("name", ""), []).append((x0, y0, x1, y1))
        except (ElementTree.ParseError, ValueError) as error:
            raise UsageError(f"{path} is no annotation in ImageNet's form: {error}") from error
    return found
